"""Weights in blocks of 4 or 8 bits: linear layers as MatMulNBits, tables as GatherBlockQuantized."""

from __future__ import annotations

from collections.abc import Collection

import onnx_ir as ir

from edgeq.formats.onnx.blocked import Scheme
from edgeq.formats.onnx.passes.blocked_weights import BlockedOptions, blocked_weights
from edgeq.kernels_cpu.blocked_weights import quantize_rows
from edgeq.onnx.job import Apply, Job, onnx_quant


@onnx_quant("int4")
def int4(job: Job) -> Apply:
    """Blocks of 4 bits; convolutions stay float."""
    return _blocked(job, 4)


@onnx_quant("int8-blocks")
def int8_blocks(job: Job) -> Apply:
    """Blocks of 8 bits; convolutions stay float."""
    return _blocked(job, 8)


def _blocked(job: Job, bits: int) -> Apply:
    scheme = Scheme(bits, job.block_size)

    def apply(model: ir.Model, layers: Collection[str]) -> None:
        options = BlockedOptions(
            "ort", scheme, quantize=quantize_rows, keep=lambda linear: linear.name not in layers
        )
        blocked_weights(model, options)

    return apply
