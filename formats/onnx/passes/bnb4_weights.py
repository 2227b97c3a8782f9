"""Weights as 4-bit codes of a table (NF4, FP4); activations stay float.

A linear layer's weight becomes MatMulBnb4 of ONNX Runtime, in blocks of weights that follow one another in the rows
[outputs, inputs]; a Gemm's bias is added after it. Codes that others made of the weight, of either table, are copied
with their blocks.

ONNX Runtime's CPU provider has no kernel that multiplies such codes: it dequantizes the matrix at every run.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgeq.formats.onnx import edit
from edgeq.formats.onnx.blocked_store import LOSSLESS, ROUNDED
from edgeq.formats.onnx.edit import ERROR, HANDLING, ORIGIN, add_lazy_initializer, insert
from edgeq.formats.onnx.linear import Linear, find_linears
from edgeq.formats.onnx.passes.int8_weights import add_gemm_bias
from edgeq.formats.onnx.rows import RowReader, pieces, rows_of
from edgeq.formats.onnx.table_codes import Table, pack, quantize, table_of, values
from edgeq.formats.rounding_error import RoundingError
from edgeq.formats.table_codes import TableCodes

DOMAIN = "com.microsoft"
CODES_ON_CPU = "ONNX Runtime's CPU provider dequantizes such weights at every run: for memory, not for speed"


@dataclass
class _Stored:
    """A weight's initializers; ``scales`` are computed with the codes, and wait until they are read."""

    codes: ir.Value
    scales: ir.Value
    table: Table
    size: int


def bnb4_weights(
    model: ir.Model, table: Table, size: int, keep: Callable[[Linear], bool] = lambda linear: False
) -> int:
    """Rewrite the linear layers but for those to ``keep``; returns how many. Codes are computed when it is saved."""
    stored: dict[ir.Value, _Stored] = {}
    count = 0
    for linear in list(find_linears(model)):
        if keep(linear):
            continue
        if linear.weight not in stored:
            reader = rows_of(linear.weight, linear.transposed)
            stored[linear.weight] = _store(model, str(linear.weight.name), reader, table, size)
        weight = stored[linear.weight]
        y = insert(
            model,
            linear.node,
            "MatMulBnb4",
            [linear.activation, weight.codes, weight.scales],
            domain=DOMAIN,
            K=linear.inputs_width,
            N=linear.outputs_width,
            block_size=weight.size,
            quant_type=weight.table.quant_type,
        )
        edit.replace(model, linear.node.outputs[0], add_gemm_bias(model, linear, y))
        count += 1
    edit.remove_unused(model)
    return count


def _store(model: ir.Model, name: str, reader: RowReader, table: Table, size: int) -> _Stored:
    total = reader.shape[0] * reader.shape[1]
    waiting: dict[str, NDArray[Any]] = {}
    given = reader.codes()
    own = None if given is None else table_of(given)
    if given is None or own is None:
        given = None
    else:
        table, size = own, given.size

    def take(part: str) -> NDArray[Any]:
        if part not in waiting:
            waiting.update(_computed(reader, table, size, codes) if given is None else _copied(given, reader))
        return waiting.pop(part)

    codes = add_lazy_initializer(
        model, f"{name}_{table.name}", np.uint8, ((total + 1) // 2,), lambda: take("codes")
    )
    scales = add_lazy_initializer(
        model, f"{name}_absmax", np.float32, (-(-total // size),), lambda: take("scales")
    )
    if reader.layout is not None:
        codes.meta[ORIGIN], codes.meta[HANDLING] = reader.layout, ROUNDED if given is None else LOSSLESS
    return _Stored(codes, scales, table, size)


def _copied(given: TableCodes, reader: RowReader) -> dict[str, NDArray[Any]]:
    codes, scales = given.read()
    reader.done()
    return {"codes": codes, "scales": scales}


def _computed(reader: RowReader, table: Table, size: int, value: ir.Value) -> dict[str, NDArray[Any]]:
    """The packed codes and the scales; blocks that reach into the next piece of rows wait for it."""
    codes, scales, left = [], [], np.zeros(0, np.float32)
    error = RoundingError()
    for start, stop in pieces(reader):
        flat = np.concatenate([left, reader.rows(start, stop).reshape(-1)])
        whole = flat.size if stop == reader.shape[0] else flat.size - flat.size % size
        flat, left = flat[:whole], flat[whole:]
        found = quantize(flat, size, table)
        codes.append(found[0])
        scales.append(found[1])
        error += RoundingError.of(flat, values(*found, size, table))
    reader.done()
    value.meta[ERROR] = error.relative
    return {"codes": pack(np.concatenate(codes)), "scales": np.concatenate(scales)}
