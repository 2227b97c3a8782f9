"""Weights in 16 bits, or all that is computed."""

from __future__ import annotations

from collections.abc import Collection

import onnx_ir as ir

from edgeq.formats.onnx.passes.half_compute import half_compute
from edgeq.formats.onnx.passes.half_weights import Kind, half_weights
from edgeq.onnx.job import Apply, Job, onnx_quant
from edgeq.wording import counted


@onnx_quant("float16", rounds_layers=False)
def float16(job: Job) -> Apply:
    """Weights in float16, but for what it cannot hold."""
    return _stored(job, "float16")


@onnx_quant("bfloat16", rounds_layers=False)
def bfloat16(job: Job) -> Apply:
    """Weights in bfloat16. ONNX Runtime 1.31's CPU provider has no MatMul, Gemm, Conv or Add of it to compute in."""
    return _stored(job, "bfloat16")


@onnx_quant("fp16", rounds_layers=False)
def fp16(job: Job) -> Apply:
    """Computed in float16, for GPUs, browsers and NPUs; ONNX Runtime casts where a CPU has no such kernel."""

    def apply(model: ir.Model, layers: Collection[str]) -> None:
        found = half_compute(model, keep=job.kept)
        job.notes.append(f"{counted(found.nodes, 'node')} computed in float16")
        if found.kept:
            names = ", ".join(found.kept)
            job.notes.append(f"{counted(len(found.kept), 'node')} left in float32, for range: {names}")

    return apply


def _stored(job: Job, kind: Kind) -> Apply:
    def apply(model: ir.Model, layers: Collection[str]) -> None:
        count, kept = half_weights(model, kind, job.kept)
        job.notes.append(f"{counted(count, 'tensor')} in {kind}, arithmetic in float32")
        if kept:
            job.notes.append(f"kept in float32: {', '.join(kept)}")

    return apply
