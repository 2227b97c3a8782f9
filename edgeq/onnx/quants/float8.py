"""Weights in 8-bit floats."""

from __future__ import annotations

from collections.abc import Collection

import onnx_ir as ir

from edgeq.formats.onnx.passes.float8_weights import float8_weights
from edgeq.onnx.job import Apply, Job, onnx_quant
from edgeq.wording import counted

# ONNX Runtime then dequantizes the weights once, when it loads the file.
_FOLD = {"session.disable_quant_qdq": "1"}


@onnx_quant("float8", rounds_layers=False)
def float8(job: Job) -> Apply:
    """Weights in float8 (E4M3), a scale for each output channel."""
    job.session.update(_FOLD)

    def apply(model: ir.Model, layers: Collection[str]) -> None:
        count, kept = float8_weights(model, job.granularity, job.kept)
        job.notes.append(f"{counted(count, 'tensor')} in float8, arithmetic in float32")
        if kept:
            job.notes.append(f"kept in float32: {', '.join(kept)}")

    return apply
