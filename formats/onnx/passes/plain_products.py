"""Products with a constant matrix in the forms that the other passes know: MatMul, and Gemm with factors of 1.

Rules
1. A Gemm's alpha goes into its constant matrix, its beta into its constant bias; a bias that is no constant keeps both
   where they are.
2. A Gemm that reads its first input transposed reads a Transpose of it.
3. An Einsum that sums the last axis of its first input with one of a constant matrix, and puts the other in its place
   (``bth,ho->bto`` or ``...h,oh->...o``), is a MatMul.
"""

from __future__ import annotations

import re

import numpy as np
import onnx_ir as ir

from edgeq.formats.onnx.edit import (
    add_lazy_initializer,
    attribute,
    constant,
    dims,
    insert,
    is_standard,
    remove_unused,
    replace,
)
from edgeq.formats.onnx.rows import made_of

_EQUATION = re.compile(r"(\.{3})?([A-Za-z]*)([A-Za-z]),([A-Za-z])([A-Za-z])->(\.{3})?([A-Za-z]*)([A-Za-z])")


def plain_products(model: ir.Model) -> int:
    """Rewrite the products; returns how many were rewritten."""
    count = 0
    for node in list(model.graph.all_nodes()):
        if is_standard(node) and node.op_type in ("Gemm", "Einsum"):
            count += _gemm(model, node) if node.op_type == "Gemm" else _einsum(model, node)
    if count:
        remove_unused(model)
    return count


def _gemm(model: ir.Model, node: ir.Node) -> bool:
    """Rules 1 and 2."""
    turned = bool(attribute(node, "transA", 0))
    factors = {1: float(attribute(node, "alpha", 1.0))}
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        factors[2] = float(attribute(node, "beta", 1.0))
    if not turned and set(factors.values()) == {1.0}:
        return False
    if node.inputs[0] is None or any(not _is_floats(node.inputs[index]) for index in (1, *factors)):
        return False
    for index, factor in factors.items():
        _multiply(model, node, index, factor)
    for name in ("alpha", "beta", "transA"):
        node.attributes.pop(name, None)
    if turned:
        node.replace_input_with(0, insert(model, node, "Transpose", [node.inputs[0]], perm=[1, 0]))
    return True


def _multiply(model: ir.Model, node: ir.Node, index: int, factor: float) -> None:
    value = node.inputs[index]
    tensor = constant(value)
    assert value is not None
    assert tensor is not None
    if factor != 1:
        scale = np.float32(factor)
        scaled = add_lazy_initializer(
            model,
            f"{value.name}_scaled",
            np.float32,
            dims(tensor),
            lambda: made_of(tensor, lambda numbers: numbers * scale),
        )
        node.replace_input_with(index, scaled)


def _einsum(model: ir.Model, node: ir.Node) -> bool:
    """Rule 3."""
    found = _EQUATION.fullmatch(str(attribute(node, "equation", "")).replace(" ", ""))
    if found is None or len(node.inputs) != 2 or not _is_floats(node.inputs[1]):
        return False
    dots, rows, summed, first, second, dots_out, rows_out, made = found.groups()
    turned = (first, second) == (made, summed)
    apart = len({*rows, summed, made}) == len(rows) + 2
    if not apart or (dots, rows) != (dots_out, rows_out) or not (turned or (first, second) == (summed, made)):
        return False
    x, matrix = node.inputs
    if turned:
        matrix = insert(model, node, "Transpose", [matrix], perm=[1, 0])
    replace(model, node.outputs[0], insert(model, node, "MatMul", [x, matrix]))
    return True


def _is_floats(value: ir.Value | None) -> bool:
    """Whether a value is a float32 constant."""
    tensor = constant(value)
    return tensor is not None and tensor.dtype == ir.DataType.FLOAT
