"""The dialect for ONNX Runtime's CUDA provider: ONNX's own Attention, blocked weights as MatMulNBits, float16.

The ort dialect does not run there: that provider's GroupQueryAttention refuses a bias, which is how padding reaches it.
"""

from __future__ import annotations

import onnx_ir as ir

from edgeq.convert.dialects.base import dialect
from edgeq.convert.dialects.standard import StandardOps
from edgeq.formats.onnx.passes.half_compute import OWN, half_compute


@dialect("cuda")
class CudaOps(StandardOps):
    """As the standard dialect; a graph with blocked weights computes in float16, which those kernels are made for."""

    form = "ort"

    @classmethod
    def quantized(cls, model: ir.Model) -> None:
        if any(node.op_type == "MatMulNBits" for node in model.graph):
            half_compute(model, OWN)
