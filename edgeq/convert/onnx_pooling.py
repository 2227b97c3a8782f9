"""A sentence's vector out of its tokens' vectors, as ONNX nodes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from edgeq.families.ops import Pooling
from edgeq.formats.onnx.builder import GraphBuilder

_LOWEST = -1e9  # what padding counts as in a maximum


def pooled(
    b: GraphBuilder, x: ir.Value, pooling: Pooling, mask: ir.Value, positions: Callable[[], ir.Value]
) -> ir.Value:
    """One vector per sequence ``[batch, C]`` of ``x`` ``[batch, tokens, C]``: of the tokens that the mask has."""
    if pooling == "cls":
        return b.op("Gather", x, b.constant(0), axis=1)
    if pooling == "max":
        seen = b.op("Unsqueeze", b.op("Cast", mask, to=ir.DataType.BOOL), b.constant([2]))
        shown = b.op("Where", seen, x, b.constant(_LOWEST, np.float32))
        largest, _ = b.top_k(b.op("Transpose", shown, perm=[0, 2, 1]), 1)
        return b.op("Squeeze", largest, b.constant([2]))
    tokens = mask if pooling == "mean" else _last(b, mask, positions())
    share = b.op("Unsqueeze", b.op("Cast", tokens, to=ir.DataType.FLOAT), b.constant([2]))
    total = b.op("ReduceSum", b.op("Mul", x, share), b.constant([1]), keepdims=0)
    count = b.op("ReduceSum", share, b.constant([1]), keepdims=0)
    return b.op("Div", total, b.op("Max", count, b.constant(1.0, np.float32)))


def _last(b: GraphBuilder, mask: ir.Value, positions: ir.Value) -> ir.Value:
    """Which token is the last one, on whichever side it is padded."""
    place = b.op("Mul", mask, b.op("Add", positions, b.constant(1)))  # 0 for padding
    last, _ = b.top_k(place, 1)
    return b.op("And", b.op("Equal", place, last), b.op("Cast", mask, to=ir.DataType.BOOL))


def normalised(b: GraphBuilder, x: ir.Value) -> ir.Value:
    """``x`` brought to unit length along its last axis (upstream: torch ``normalize``)."""
    length = b.op("Sqrt", b.op("ReduceSum", b.op("Mul", x, x), b.constant([-1]), keepdims=1))
    return b.op("Div", x, b.op("Max", length, b.constant(1e-12, np.float32)))
