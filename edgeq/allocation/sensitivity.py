"""What quantizing a tensor costs: its error as its inputs weigh it, scaled by losses that were measured.

A loss (``evaluation.loss``) grows with the square of a small disturbance, and those of several tensors add up as if
each were alone; so a tensor's loss is a factor of its own times the relative squared error of its output (as the
diagonal of the Gram matrix of its inputs sees it). The factors are measured on groups of tensors, each group quantized
alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.typing import NDArray

from edgeq.allocation.candidates import Candidate, bits
from edgeq.devices.detect import instruction_set
from edgeq.engine.weights import Floats
from edgeq.formats.effort import Effort
from edgeq.kernels_cpu.decode import decode
from edgeq.kernels_cpu.encode import encode
from edgeq.source import ModelSource

_LAYER = re.compile(r"blk\.(\d+)\.(.+)")
_SAMPLED = 1 << 21  # values of a tensor that are looked at
_TOGETHER = 16  # rows that are read together
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Sensitivity:
    """What each tensor loses in each type: by tensor and type name."""

    losses: dict[str, dict[str, float]]
    measured: dict[str, float]  # loss of each group of tensors that was quantized alone
    probe: str  # the type that the groups had

    def of(self, types: Mapping[str, str]) -> float:
        """The loss that is predicted of a model with these types."""
        return sum(self.losses[name][kind] for name, kind in types.items())


def output_errors(
    source: ModelSource,
    options: Mapping[str, Sequence[Candidate]],
    importance: Mapping[str, Floats],
    progress: Progress = lambda stage, done, total: None,
) -> dict[str, dict[str, float]]:
    """Σ importance · (w − q)² / Σ importance · w² of every tensor and type, over rows that lie evenly in the tensor.

    ``importance`` has the columns' weights, a row for each expert of a stack; a tensor without has them all alike.
    """
    found: dict[str, dict[str, float]] = {}
    for done, (name, kinds) in enumerate(options.items(), start=1):
        values, experts = _sampled(source, name)
        weights = importance.get(name)
        own = None if weights is None else weights[np.minimum(experts, len(weights) - 1)]
        found[name] = {kind.type_name: _error(values, kind.type_name, own) for kind in kinds}
        progress("weighing types", done, len(options))
    return found


def _sampled(source: ModelSource, name: str) -> tuple[Floats, NDArray[np.int64]]:
    """Some rows of a tensor, and which expert of a stack each belongs to."""
    *outer, columns = source.shape(name)
    n_rows, step = prod(outer), max(1, _SAMPLED // columns)
    starts = range(0, n_rows, _TOGETHER)
    wanted = max(1, min(len(starts), step // _TOGETHER))
    picked = [starts[i] for i in np.linspace(0, len(starts) - 1, wanted).round().astype(int)]
    ranges = [range(first, min(n_rows, first + _TOGETHER)) for first in picked]
    values = np.concatenate([source.rows(name, part.start, part.stop) for part in ranges])
    source.release(name)
    return values, np.concatenate([np.asarray(part) for part in ranges]) // outer[-1]


def _error(values: Floats, kind: str, weights: Floats | None) -> float:
    """As the plain search of ggml rounds them: better codes are better by about the same share in every type."""
    coded = encode(kind, values, None, instruction_set(), Effort.ggml)
    difference = values - decode(kind, coded, values.shape[1], instruction_set())
    size = _weighted(values, weights)
    return _weighted(difference, weights) / size if size else 0.0


def _weighted(values: Floats, weights: Floats | None) -> float:
    squares = np.square(values, dtype=np.float64)
    return float(squares.sum() if weights is None else (squares * weights).sum())


def groups_of(names: Iterable[str], n_layers: int, most: int) -> dict[str, list[str]]:
    """Tensors that are measured together: of one role, in layers that lie together; about ``most`` groups."""
    roles: dict[str, list[tuple[int, str]]] = {}
    for name in names:
        match = _LAYER.match(name)
        roles.setdefault(match[2] if match else name, []).append((int(match[1]) if match else 0, name))
    parts = max(1, min(n_layers, most // max(1, len(roles))))
    found: dict[str, list[str]] = {}
    for role, members in roles.items():
        for layer, name in members:
            part = layer * parts // max(1, n_layers) if len(members) > 1 else 0
            found.setdefault(f"{role} {part + 1}/{parts}" if len(members) > 1 else role, []).append(name)
    return found


def probe_type(kinds: Iterable[str], wanted_bits: float) -> str:
    """The type that groups are measured in: the one next below the wanted size, where the loss is well above noise."""
    ordered = sorted(set(kinds), key=bits)
    below = [kind for kind in ordered if bits(kind) <= wanted_bits]
    return below[-1] if below else ordered[0]


def sensitivity(
    errors: dict[str, dict[str, float]],
    groups: Mapping[str, Sequence[str]],
    probe: str,
    measure: Callable[[Mapping[str, str]], float],
    progress: Progress = lambda stage, done, total: None,
) -> Sensitivity:
    """Measure each group alone in the type ``probe`` (or the smallest that its tensors have), and scale the errors."""
    losses: dict[str, dict[str, float]] = {}
    measured = {}
    for done, (group, names) in enumerate(groups.items(), start=1):
        types = {name: probe if probe in errors[name] else next(iter(errors[name])) for name in names}
        measured[group] = measure(types)
        total = sum(errors[name][kind] for name, kind in types.items())
        factor = measured[group] / total if total else 0.0
        for name in names:
            losses[name] = {kind: factor * error for kind, error in errors[name].items()}
        progress("measuring tensors", done, len(groups))
    return Sensitivity(losses, measured, probe)
