"""Allocation for a GGUF file: a model, a text to calibrate and to measure on, a goal → the type of each tensor."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf, prod
from typing import Any

import numpy as np

from edgeq.allocation.candidates import DEFAULT_TYPES, bits, candidates
from edgeq.allocation.meter import Meter, windows_of
from edgeq.allocation.search import Allocation, Goal, Problem, Types, search
from edgeq.allocation.sensitivity import groups_of, output_errors, probe_type, sensitivity
from edgeq.allocation.trial import Coded, Coder
from edgeq.calibration.importance import ImportanceCollector
from edgeq.devices.detect import instruction_set
from edgeq.engine.model import Model
from edgeq.engine.weights import Floats
from edgeq.errors import InputError
from edgeq.formats.effort import Effort
from edgeq.formats.gguf.mixes import ModelShape
from edgeq.source import ModelSource

_WINDOW = 128  # tokens of one forward pass
_HELD_OUT = 0.25  # of the text: never calibrated on, only measured on
_CALIBRATED, _PROBED, _MEASURED = 16_384, 2048, 4096  # tokens
_LARGE = 300_000_000  # parameters from which on fewer tokens and groups are measured
_CALIBRATED_LARGE, _PROBED_LARGE, _MEASURED_LARGE = 4096, 512, 1024
_GROUPS, _GROUPS_LARGE = 64, 16
_LOGITS = 1 << 26  # float32 logits that are kept of the float model: 256 MB


@dataclass
class Request:
    """A decoder, its text's tokens, what shall hold. ``fixed_bytes`` is the file without what can be chosen.

    ``seconds`` says what a tensor of a type adds to the time of one token, ``fixed_seconds`` what the rest takes.
    """

    source: ModelSource
    model: Model
    tokens: Sequence[int]
    goal: Goal
    fixed_bytes: int
    types: Sequence[str] = DEFAULT_TYPES
    effort: Effort = Effort.normal
    importance: Mapping[str, Floats] | None = None  # the user's; without it, encoding is unweighted
    seconds: Callable[[str, str], float] = lambda name, kind: 0.0
    fixed_seconds: float = 0.0
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


def allocate(request: Request) -> Found:
    """Raises GateError where nothing meets the goal, InputError for a model or a text that cannot be measured on."""
    source, model = request.source, request.model
    if source.family.kind != "decoder":
        raise InputError(
            f"{source.path}: is an encoder; types are allocated by the KL of models that generate"
        )
    large = source.parameters() > _LARGE
    width = min(_WINDOW, source.hp.context)
    calibrated, measured = _split(request.tokens, width, large, source.hp.vocab)
    shapes = {name: source.shape(name) for name in _names(source)}
    options = candidates(shapes.items(), request.types)
    importance = _importance(model, calibrated, request.progress)
    coder = _cached(source, request.importance, request.effort)
    errors = output_errors(source, options, importance, request.progress)
    groups = groups_of(options, _shape(source), _GROUPS_LARGE if large else _GROUPS)
    probe = probe_type(request.types, _wanted_bits(request, shapes))
    probed = Meter(model, windows_of(_flat(calibrated), width, _PROBED_LARGE if large else _PROBED), shapes)
    scaled = sensitivity(errors, groups, probe, lambda types: probed.kl(types, coder), request.progress)
    held = Meter(model, measured, shapes)

    def measure(types: Types) -> Mapping[str, float]:
        request.progress("measuring a choice", 0, 1)
        return held.summary(types, coder)

    problem = Problem(options, scaled, request.fixed_bytes, request.seconds, request.fixed_seconds, measure)
    allocation = search(problem, request.goal)
    counts = {
        "calibrated": sum(map(len, calibrated)),
        "probed": probed.tokens,
        "measured": held.tokens,
    }
    return Found(allocation, scaled.measured, probe, counts)


def _names(source: ModelSource) -> list[str]:
    specs: Mapping[str, Any] = source.specs  # type: ignore[attr-defined]
    return [name for name in specs if source.has(name)]


def _shape(source: ModelSource) -> ModelShape:
    hp = source.hp
    return ModelShape(source.family.architecture, hp.n_layers, hp.n_heads, hp.n_kv_heads, hp.n_experts)


def _split(
    tokens: Sequence[int], width: int, large: bool, vocab: int
) -> tuple[list[list[int]], list[list[int]]]:
    """Windows to calibrate on, from the beginning of the text, and windows to measure on, from its end."""
    cut = int(len(tokens) * (1 - _HELD_OUT))
    most = min(_MEASURED_LARGE if large else _MEASURED, max(2 * width, _LOGITS // vocab))
    calibrated = windows_of(tokens[:cut], width, _CALIBRATED_LARGE if large else _CALIBRATED)
    measured = windows_of(tokens[cut:], width, most)
    if not calibrated or not measured:
        raise InputError(f"the text has {len(tokens)} tokens, too few to calibrate and to measure on")
    return calibrated, measured


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


def _cached(source: ModelSource, importance: Mapping[str, Floats] | None, effort: Effort) -> Coder:
    """Encodes a tensor once for each type that is measured."""
    from edgeq.kernels_cpu.encode import encode

    held: dict[tuple[str, str], Coded] = {}

    def code(name: str, kind: str) -> Coded:
        if (name, kind) not in held:
            *outer, columns = source.shape(name)
            weights, height, n_rows = (importance or {}).get(name), outer[-1], prod(outer)
            step = height if weights is not None and len(weights) > 1 else max(1, (1 << 22) // columns)
            parts = []
            for first in range(0, n_rows, step):
                rows = source.rows(name, first, min(n_rows, first + step))
                own = None if weights is None else weights[min(first // height, len(weights) - 1)]
                parts.append(encode(kind, rows, own, instruction_set(), effort))
            held[name, kind] = Coded(kind, np.concatenate(parts), columns)
            source.release(name)
        return held[name, kind]

    return code


def _wanted_bits(request: Request, shapes: Mapping[str, tuple[int, ...]]) -> float:
    weights = sum(prod(shape) for shape in shapes.values())
    if request.goal.nbytes == inf:
        return bits("Q4_K")
    return 8 * (request.goal.nbytes - request.fixed_bytes) / weights
