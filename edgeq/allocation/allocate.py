"""A model, a text to calibrate and to measure on, a goal → the type of each tensor, whatever file they go into."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from math import inf, prod
from typing import Any

import numpy as np

from edgeq.allocation.candidates import Candidate, bits
from edgeq.allocation.goal import NO_TIMES, Times
from edgeq.allocation.meter import Coder, Meter, Runtime
from edgeq.allocation.search import Allocation, Goal, Problem, Types, search
from edgeq.allocation.sensitivity import groups_of, output_errors, probe_type, sensitivity
from edgeq.allocation.split import Split, is_large
from edgeq.calibration.importance import ImportanceCollector
from edgeq.devices.detect import instruction_set
from edgeq.engine.model import Model
from edgeq.engine.replaced import EncodedMatrix
from edgeq.engine.weights import Floats
from edgeq.evaluation.loss import loss_of
from edgeq.source import ModelSource

_GROUPS, _GROUPS_LARGE = 64, 16


@dataclass
class Request:
    """A model, a text in two parts, what shall hold, and the types of each tensor that can be chosen.

    ``fixed_bytes`` is the file without what can be chosen. ``trial`` makes the file of a choice and opens it.
    """

    source: ModelSource
    model: Model
    split: Split
    goal: Goal
    options: Mapping[str, Sequence[Candidate]]
    fixed_bytes: int
    trial: Callable[[Types], AbstractContextManager[Runtime]]
    all_types: Callable[[Mapping[str, str]], Mapping[str, str]] = (
        dict  # with tensors that follow a chosen one
    )
    times: Times = NO_TIMES
    progress: Callable[[str, int, int], None] = field(default=lambda stage, done, total: None)


@dataclass(frozen=True)
class Found:
    """The allocation, and what was measured of single groups of tensors on the way."""

    allocation: Allocation
    measure: str  # what a loss is: ``evaluation.loss.Loss.key``
    groups: dict[str, float]
    probe: str
    tokens: dict[str, int]

    def record(self) -> dict[str, Any]:
        """In JSON's types, as it goes into edgeq.json."""
        chosen = self.allocation.chosen
        return {
            "measure": self.measure,
            "types": chosen.types,
            "chosen": chosen.record(),
            "front": [point.record() for point in self.allocation.front],
            "tried": [point.record() for point in self.allocation.tried],
            "gap": self.allocation.gap,
            "probe": self.probe,
            "group_loss": self.groups,
            "tokens": self.tokens,
        }


def allocate(request: Request) -> Found:
    """Raises GateError where nothing meets the goal."""
    source, model, split, options = request.source, request.model, request.split, request.options
    importance = _importance(model, split.calibrated, request.progress)
    errors = output_errors(source, options, importance, request.progress)
    groups = groups_of(options, source.hp.n_layers, _GROUPS_LARGE if is_large(source) else _GROUPS)
    kinds = {kind.type_name for given in options.values() for kind in given}
    probe, coder = probe_type(kinds, _wanted_bits(request)), _coder(source)
    loss = loss_of(source)
    probed, held = (Meter(model, part, loss) for part in (split.probed, split.measured))

    def measure_group(types: Mapping[str, str]) -> float:
        return probed.loss(request.all_types(types), coder)

    scaled = sensitivity(errors, groups, probe, measure_group, request.progress)

    def measure(types: Types) -> Mapping[str, float]:
        with request.trial(types) as trial:
            return held.summary(trial)

    times = request.times
    problem = Problem(options, scaled, request.fixed_bytes, times.of, times.fixed, measure, loss.told)
    found = search(problem, request.goal)
    return Found(found, loss.key, scaled.measured, probe, split.counts())


def _importance(
    model: Model, windows: Sequence[Sequence[int]], progress: Callable[[str, int, int], None]
) -> dict[str, Floats]:
    """Mean squares of what each matrix reads, a row for each expert; one that read nothing weighs all columns alike."""
    collector = ImportanceCollector(head=True)
    for done, window in enumerate(windows, start=1):
        collector.read(model, window)
        progress("calibrating", done, len(windows))
    found = {}
    for name, sums in collector.sums.items():
        means = sums / np.maximum(1, collector.counts[name])[:, None]
        found[name] = np.where(means.sum(axis=1, keepdims=True) > 0, means, 1.0).astype(np.float32)
    return found


def _coder(source: ModelSource) -> Coder:
    """Encodes tensors as ggml does, for trials of some of them."""
    from edgeq.kernels_cpu.encode import encode

    def code(name: str, kind: str) -> EncodedMatrix:
        *outer, columns = source.shape(name)
        n_rows, step = prod(outer), max(1, (1 << 22) // columns)
        parts = [
            encode(kind, source.rows(name, first, min(n_rows, first + step)), None, instruction_set())
            for first in range(0, n_rows, step)
        ]
        source.release(name)
        return EncodedMatrix(kind, np.concatenate(parts), columns, outer[-1])

    return code


def _wanted_bits(request: Request) -> float:
    """Bits of a weight that can be chosen, where a size is asked for."""
    weights = sum(prod(request.source.shape(name)) for name in request.options)
    if request.goal.nbytes == inf:
        return bits("Q4_K")
    return 8 * (request.goal.nbytes - request.fixed_bytes) / weights
