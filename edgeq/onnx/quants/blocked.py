"""Weights in blocks of 2, 4 or 8 bits: linear layers and tables; convolutions stay float."""

from __future__ import annotations

from collections.abc import Collection
from functools import partial

import onnx_ir as ir

from edgeq.devices.detect import instruction_set
from edgeq.formats.onnx.blocked import Scheme
from edgeq.formats.onnx.linear import find_linears
from edgeq.formats.onnx.passes.blocked_weights import BlockedOptions, blocked_weights
from edgeq.formats.onnx.rows import set_rows
from edgeq.kernels_cpu.blocked_weights import nearest_rows, quantize_rows
from edgeq.onnx.chosen_rows import choose_rows
from edgeq.onnx.job import Apply, Job, onnx_quant

_LEVEL = "session.qdq_matmulnbits_accuracy_level"
_TWO_BIT_BLOCKS = (32, 64, 128)  # for which ONNX Runtime 1.31 has a 2-bit kernel, at level 4 alone


@onnx_quant("int2")
def int2(job: Job) -> Apply:
    """Blocks of 2 bits, tables of 8."""
    if job.blocks.size not in _TWO_BIT_BLOCKS or job.blocks.accuracy_level != 4:
        job.notes.append(
            "ONNX Runtime has no 2-bit kernel for this: it dequantizes the weights at every run; take blocks of "
            "32, 64 or 128, and --accuracy-level 4"
        )
    return _blocked(job, 2)


@onnx_quant("int4")
def int4(job: Job) -> Apply:
    """Blocks of 4 bits, tables of 8."""
    return _blocked(job, 4)


@onnx_quant("int8-blocks")
def int8_blocks(job: Job) -> Apply:
    """Blocks of 8 bits."""
    return _blocked(job, 8)


def _blocked(job: Job, bits: int) -> Apply:
    blocks = job.blocks
    rounding = nearest_rows if blocks.nearest else quantize_rows
    if (
        blocks.form == "standard" and blocks.accuracy_level != 4
    ):  # the level that ONNX Runtime takes by itself
        job.session[_LEVEL] = str(blocks.accuracy_level)

    scheme = Scheme(bits, blocks.size, blocks.symmetric)
    chosen = {} if blocks.method is None else choose_rows(job, scheme, blocks.method)

    def apply(model: ir.Model, layers: Collection[str]) -> None:
        for linear in find_linears(model):
            if linear.weight.name in chosen:
                set_rows(linear.weight, chosen[linear.weight.name])
        options = BlockedOptions(
            blocks.form,
            scheme,
            accuracy_level=blocks.accuracy_level,
            quantize=partial(rounding, isa=instruction_set()),
            keep=lambda linear: linear.name not in layers,
        )
        blocked_weights(model, options)

    return apply
