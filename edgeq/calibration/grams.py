"""Gram matrices of what linear layers read, while a model reads a text: H = Σ x·xᵀ over tokens, float32.

A decoder is read layer by layer, all samples through one layer before the next, so that only one layer's matrices are
in memory; and each layer reads what the layers before it give after they were quantized, for that is what it will get.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from math import prod

import numpy as np
from numpy.typing import NDArray

from edgeq.calibration.importance import STACK, ImportanceCollector
from edgeq.engine.model import Model
from edgeq.engine.ops import NumpyOps
from edgeq.engine.replaced import DecodedMatrix, ReplacedWeights
from edgeq.errors import FormatError
from edgeq.families.decoder import Decoder
from edgeq.methods import Statistics

Floats = NDArray[np.float32]

_HEADS = ("output.weight", "token_embd.weight")
_GROUP_BYTES = 1 << 30  # Gram matrices of a model that is read whole, in memory at a time


class GramCollector:
    """Sums x·xᵀ of each layer in ``wanted``; an observer for ``Model.observe``.

    Layers that read the same array share one matrix. Stacks of experts get sums of squares alone (``importance``).
    """

    def __init__(self, wanted: Callable[[str], bool]) -> None:
        self.importance = ImportanceCollector(head=True)
        self._wanted = wanted
        self._found: dict[str, Statistics] = {}
        self._owner: dict[str, str] = {}
        self._last: tuple[Floats | None, str] = None, ""

    def __call__(self, name: str, x: Floats, expert: int) -> None:
        if not self._wanted(name):
            return
        if STACK in name:
            self.importance(name, x, expert)
            return
        if name not in self._owner:
            same = self._last[0] is x
            self._owner[name] = self._last[1] if same else name
            if not same:
                self._found[name] = Statistics(np.zeros((x.shape[1], x.shape[1]), np.float32), 0)
        owner = self._owner[name]
        self._last = x, owner
        if owner == name:
            self._found[name].gram += x.T @ x
            self._found[name].tokens += len(x)

    def statistics(self, where: str) -> dict[str, Statistics]:
        """By layer; raises FormatError where one read NaN or infinity."""
        for name, found in self._found.items():
            if not np.isfinite(np.diag(found.gram)).all():
                problem = f"{name} reads NaN or infinity: weights are damaged"
                raise FormatError(where, problem, "make it again")
        return {name: self._found[owner] for name, owner in self._owner.items()}


Group = tuple[dict[str, Statistics], ImportanceCollector]
Replace = Callable[[str, Floats], None]


def read_in_groups(
    model: Model, samples: Sequence[Sequence[int]], wanted: Callable[[str], bool]
) -> Iterator[tuple[Group, Replace]]:
    """Groups of layers in the order in which a model reads them: their statistics, and what takes new weights.

    Whatever is replaced before the next group is asked for is what that one reads. ``wanted`` says of a weight's name
    whether its statistics are.
    """
    if isinstance(model.family, Decoder):
        yield from _by_layer(model, model.family, samples, wanted)
    else:
        yield from _whole(model, samples, wanted)


def _by_layer(
    model: Model, family: Decoder, samples: Sequence[Sequence[int]], wanted: Callable[[str], bool]
) -> Iterator[tuple[Group, Replace]]:
    weights = ReplacedWeights(model.weights)

    def passed(x: Floats | None, tokens: Sequence[int], i: int, collector: GramCollector | None) -> Floats:
        ops = NumpyOps(weights, tokens, None, False, collector)
        if x is None:
            return family.embedded(ops, model.hp)
        if i == model.hp.n_layers:
            return family.logits(ops, model.hp, x)
        return family.layer_output(ops, model.hp, i, x)

    # The head is asked for what it reads, not for logits.
    nothing = DecodedMatrix(np.zeros((1, model.hp.hidden), np.float32))
    hidden = [passed(None, tokens, 0, None) for tokens in samples]
    for i in range(model.hp.n_layers + 1):
        collector = _collector(model, wanted)
        if i == model.hp.n_layers:
            weights.replaced = dict.fromkeys(_HEADS, nothing)
        with np.errstate(all="ignore"):  # what overflows is reported once
            for x, tokens in zip(hidden, samples, strict=True):
                passed(x, tokens, i, collector)
        group = [(collector.statistics(model.name), collector.importance)]
        del collector  # the matrices go when whoever asked for them lets them go
        yield group.pop(), lambda name, values: weights.replaced.update({name: DecodedMatrix(values)})
        for k, tokens in enumerate(samples if i < model.hp.n_layers else []):
            hidden[k] = passed(hidden[k], tokens, i, None)  # one by one: they are large together
        weights.replaced.clear()


def _whole(
    model: Model, samples: Sequence[Sequence[int]], wanted: Callable[[str], bool]
) -> Iterator[tuple[Group, Replace]]:
    """A model of another kind is read as it is, once for as many layers as fit into memory."""
    for names in _fitting(model, wanted):
        collector = _collector(model, names.__contains__)
        with np.errstate(all="ignore"):
            for tokens in samples:
                model.observe(tokens, collector, head=True)
        yield (collector.statistics(model.name), collector.importance), lambda name, values: None


def _collector(model: Model, wanted: Callable[[str], bool]) -> GramCollector:
    collector = GramCollector(wanted)
    collector.importance.set_experts(model.hp.n_experts)
    return collector


def _fitting(model: Model, wanted: Callable[[str], bool]) -> Iterator[set[str]]:
    """The wanted matrices in groups whose Gram matrices fit."""
    shapes: Mapping[str, tuple[int, ...]] = {
        spec.name: spec.shape
        for spec in model.family.tensors(model.hp)
        if len(spec.shape) > 1 and wanted(spec.name) and model.weights.has(spec.name)
    }
    group: set[str] = set()
    size = 0
    for name, shape in shapes.items():
        own = 4 * prod(shape[-1:]) ** 2
        if group and size + own > _GROUP_BYTES:
            yield group
            group, size = set(), 0
        group.add(name)
        size += own
    if group:
        yield group
