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
from edgeq.allocation.meter import GivesLogits, Meter, windows_of
from edgeq.allocation.search import Allocation, Goal, Problem, Types, search
from edgeq.allocation.sensitivity import groups_of, output_errors, probe_type, sensitivity
from edgeq.allocation.trial import Coded, Coder
from edgeq.calibration.importance import ImportanceCollector
from edgeq.devices.detect import instruction_set
from edgeq.engine.model import Model
from edgeq.engine.weights import Floats
from edgeq.errors import InputError
from edgeq.source import ModelSource

_WINDOW = 128  # tokens of one forward pass
_HELD_OUT = 0.25  # of the text: never calibrated on, only measured on
_CALIBRATED, _PROBED, _MEASURED = 16_384, 4096, 4096  # tokens
_LARGE = 300_000_000  # parameters from which on fewer tokens and groups are measured
_CALIBRATED_LARGE, _PROBED_LARGE, _MEASURED_LARGE = 4096, 512, 1024
_GROUPS, _GROUPS_LARGE = 64, 16
_LOGITS = 1 << 26  # float32 logits that are kept of the float model: 256 MB


@dataclass
class Request:
    """A decoder, its text's tokens, what shall hold, and the types of each tensor that can be chosen.

    ``fixed_bytes`` is the file without what can be chosen. ``trial`` makes the file of a choice and opens it. The first
    ``held_out(source, len(tokens))`` tokens are measured on, the others calibrated on.
    """

    source: ModelSource
    model: Model
    tokens: Sequence[int]
    goal: Goal
    options: Mapping[str, Sequence[Candidate]]
    fixed_bytes: int
    trial: Callable[[Types], AbstractContextManager[GivesLogits]]
    all_types: Callable[[Mapping[str, str]], Mapping[str, str]] = (
        dict  # with tensors that follow a chosen one
    )
    times: Times = NO_TIMES
    progress: Callable[[str, int, int], None] = field(default=lambda stage, done, total: None)


@dataclass(frozen=True)
class Found:
    """The allocation, and what was measured of single groups of tensors on the way."""

    allocation: Allocation
    groups: dict[str, float]
    probe: str
    tokens: dict[str, int]

    def record(self) -> dict[str, Any]:
        """In JSON's types, as it goes into edgeq.json."""
        chosen = self.allocation.chosen
        return {
            "types": chosen.types,
            "chosen": chosen.record(),
            "front": [point.record() for point in self.allocation.front],
            "tried": [point.record() for point in self.allocation.tried],
            "gap": self.allocation.gap,
            "probe": self.probe,
            "group_kl": self.groups,
            "tokens": self.tokens,
        }


def held_out(source: ModelSource, tokens: int) -> int:
    """How many of a text's tokens, from its beginning, are measured on and never calibrated on."""
    most = _MEASURED_LARGE if _is_large(source) else _MEASURED
    most = min(most, max(2 * _WINDOW, _LOGITS // source.hp.vocab))
    return min(most, int(tokens * _HELD_OUT))


def allocate(request: Request) -> Found:
    """Raises GateError where nothing meets the goal, InputError for a model or a text that cannot be measured on."""
    source, model = request.source, request.model
    if source.family.kind != "decoder":
        raise InputError(
            f"{source.path}: is an encoder; types are allocated by the KL of models that generate"
        )
    large, cut = _is_large(source), held_out(source, len(request.tokens))
    width = min(_WINDOW, source.hp.context)
    measured = windows_of(request.tokens[:cut], width, cut)
    calibrated = windows_of(request.tokens[cut:], width, _CALIBRATED_LARGE if large else _CALIBRATED)
    if not calibrated or not measured:
        raise InputError(f"the text has {len(request.tokens)} tokens, too few to calibrate and to measure on")
    shapes = {name: source.shape(name) for name in source.specs}
    options = request.options
    importance = _importance(model, calibrated, request.progress)
    errors = output_errors(source, options, importance, request.progress)
    groups = groups_of(options, source.hp.n_layers, _GROUPS_LARGE if large else _GROUPS)
    kinds = {kind.type_name for given in options.values() for kind in given}
    probe, coder = probe_type(kinds, _wanted_bits(request)), _coder(source)
    some = windows_of(_flat(calibrated), width, _PROBED_LARGE if large else _PROBED)
    probed, held = Meter(model, some, shapes), Meter(model, measured, shapes)

    def measure_group(types: Mapping[str, str]) -> float:
        return probed.kl(request.all_types(types), coder)

    scaled = sensitivity(errors, groups, probe, measure_group, request.progress)

    def measure(types: Types) -> Mapping[str, float]:
        with request.trial(types) as trial:
            return held.summary(trial)

    times = request.times
    problem = Problem(options, scaled, request.fixed_bytes, times.of, times.fixed, measure)
    counts = {"calibrated": sum(map(len, calibrated)), "probed": probed.tokens, "measured": held.tokens}
    return Found(search(problem, request.goal), scaled.measured, probe, counts)


def _is_large(source: ModelSource) -> bool:
    return source.parameters() > _LARGE


def _flat(windows: Sequence[Sequence[int]]) -> list[int]:
    return [token for window in windows for token in window]


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

    def code(name: str, kind: str) -> Coded:
        *outer, columns = source.shape(name)
        n_rows, step = prod(outer), max(1, (1 << 22) // columns)
        parts = [
            encode(kind, source.rows(name, first, min(n_rows, first + step)), None, instruction_set())
            for first in range(0, n_rows, step)
        ]
        source.release(name)
        return Coded(kind, np.concatenate(parts), columns)

    return code


def _wanted_bits(request: Request) -> float:
    """Bits of a weight that can be chosen, where a size is asked for."""
    weights = sum(prod(request.source.shape(name)) for name in request.options)
    if request.goal.nbytes == inf:
        return bits("Q4_K")
    return 8 * (request.goal.nbytes - request.fixed_bytes) / weights
