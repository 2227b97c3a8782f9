"""Weights in 16 bits, or all that is computed."""

from __future__ import annotations

from collections.abc import Collection

import onnx_ir as ir

from edgeq.formats.onnx.passes.half_compute import half_compute
from edgeq.formats.onnx.passes.half_weights import Kind, half_weights
from edgeq.onnx.job import Apply, Job, onnx_quant


@onnx_quant("float16", rounds_layers=False)
def float16(job: Job) -> Apply:
    """Weights in float16, but for what it cannot hold."""
    return _stored(job, "float16")


@onnx_quant("bfloat16", rounds_layers=False)
def bfloat16(job: Job) -> Apply:
    """Weights in bfloat16; ONNX Runtime's CPU provider multiplies no such matrices."""
    return _stored(job, "bfloat16")


@onnx_quant("fp16", rounds_layers=False)
def fp16(job: Job) -> Apply:
    """Computed in float16, for GPUs, browsers and NPUs; ONNX Runtime casts where a CPU has no such kernel."""

    def apply(model: ir.Model, layers: Collection[str]) -> None:
        found = half_compute(model, keep=job.kept)
        job.notes.append(f"{found.nodes} nodes are computed in float16")
        if found.kept:
            names = ", ".join(found.kept)
            job.notes.append(f"{len(found.kept)} nodes stay in float32, for their range: {names}")

    return apply


def _stored(job: Job, kind: Kind) -> Apply:
    def apply(model: ir.Model, layers: Collection[str]) -> None:
        count, kept = half_weights(model, kind, job.kept)
        job.notes.append(f"{count} tensors in {kind}, arithmetic in float32")
        if kept:
            job.notes.append(f"kept in float32: {', '.join(kept)}")

    return apply
