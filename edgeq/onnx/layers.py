"""Which layers of a graph are quantized: all, but for those without which the answers stay close enough."""

from __future__ import annotations

from collections.abc import Collection

import onnx_ir as ir

from edgeq.errors import InputError
from edgeq.onnx.compare import shown
from edgeq.onnx.exempt import Exemption, exempt
from edgeq.onnx.job import Apply
from edgeq.onnx.subject import Subject

_TRIAL_SAMPLES, _MORE_SAMPLES = 16, 64


def quantize_layers(subject: Subject, apply: Apply) -> tuple[Exemption, ir.Model]:
    """The layers that stand the target, and the graph with them quantized. Raises InputError where there is none.

    They are chosen by a few samples; where more of them say otherwise, they are chosen once more by these.
    """
    target = subject.request.target
    for count in (_TRIAL_SAMPLES, _MORE_SAMPLES):
        found = _chosen(subject, apply, target, count)
        model = _applied(subject, apply, found.layers)
        if not found.layers or found.closeness < target or not subject.proven:
            break
        if subject.judged(model, subject.spread(_MORE_SAMPLES)) >= target:
            break
        target = 1 - (1 - target) / 2  # a margin for what these do not show, either
    if found.exempted:
        names = ", ".join(f"{name} ({effect:.2g})" for name, effect in found.exempted.items())
        subject.job.notes.append(
            f"back to {subject.request.exempt_to}, because all quantized gave {shown(found.before)}; what each cost "
            f"alone: {names}"
        )
    return found, model


def _applied(subject: Subject, apply: Apply, layers: Collection[str]) -> ir.Model:
    model = subject.model.clone()
    apply(model, layers)
    return model


def _chosen(subject: Subject, apply: Apply, target: float, count: int) -> Exemption:
    """The layers to quantize, judged by ``count`` samples."""
    request, layers = subject.request, subject.job.layers
    if not subject.quant.rounds_layers:
        return Exemption([], 1.0, 1.0)
    if not layers:
        kept = "every layer is kept in float"
        what = kept if request.keep_float else "there is no layer with constant weights"
        raise InputError(f"{request.source}: nothing to quantize, {what}")
    if not subject.proven:
        return Exemption(layers, 1.0, 1.0)
    samples = subject.spread(count)
    return exempt(
        layers,
        lambda chosen: subject.judged(_applied(subject, apply, chosen), samples),
        target,
        lambda done, total: request.progress("measuring layers", done, total),
        most=int(request.most_exempted * len(layers)),
        seconds=request.patience,
    )
