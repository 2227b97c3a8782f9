"""Weights as 4-bit codes of a table: NF4, FP4."""

from __future__ import annotations

from collections.abc import Collection

import onnx_ir as ir

from edgeq.formats.onnx.blocked import Scheme
from edgeq.formats.onnx.passes.blocked_weights import BlockedOptions, blocked_weights
from edgeq.formats.onnx.passes.bnb4_weights import CODES_ON_CPU, bnb4_weights
from edgeq.formats.onnx.table_codes import FP4, NF4, Table
from edgeq.onnx.job import Apply, Job, onnx_quant


@onnx_quant("nf4")
def nf4(job: Job) -> Apply:
    """Codes for weights of a normal distribution; tables in blocks of 8 bits, convolutions stay float."""
    return _codes(job, NF4)


@onnx_quant("fp4")
def fp4(job: Job) -> Apply:
    """The same with floats of 4 bits."""
    return _codes(job, FP4)


def _codes(job: Job, table: Table) -> Apply:
    job.notes.append(CODES_ON_CPU)

    def apply(model: ir.Model, layers: Collection[str]) -> None:
        bnb4_weights(model, table, job.blocks.size, lambda linear: linear.name not in layers)
        blocked_weights(model, BlockedOptions("ort", Scheme(8, job.blocks.size), keep=lambda linear: True))

    return apply
