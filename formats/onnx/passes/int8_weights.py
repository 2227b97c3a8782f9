"""The int8 form of a constant matrix, shared by the passes."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgeq.formats.onnx.edit import ERROR, add_initializer, add_lazy_initializer, dims, insert
from edgeq.formats.onnx.int8 import FULL_RANGE, channel_scales, quantize_channels, relative_error
from edgeq.formats.onnx.linear import Linear
from edgeq.formats.onnx.rows import let_go, made_of

_SLICES = "edgeq.int8_slices_"  # and the axis: key of a meta, (codes, scales, zero points) so far
_FORMS = "edgeq.int8_forms"  # key of a float initializer's meta: its (codes, scales, axis, limit) so far


def int8_matrix(model: ir.Model, matrix: ir.Value, axis: int, limit: int) -> tuple[ir.Value, ir.Value]:
    """(int8 codes in the matrix's own layout, float32 scales): symmetric, one scale per slice along ``axis``.

    Codes are computed when the model is saved; a matrix that two nodes share is stored once, unless they want
    scales along different axes, or the second a smaller limit than the first.
    """
    tensor, name = matrix.const_value, matrix.name
    assert tensor is not None
    assert name is not None
    for codes, scale_value, stored_axis, stored_limit in matrix.meta.get(_FORMS, ()):
        here = model.graph.initializers.get(codes.name) is codes
        if here and stored_axis == axis and stored_limit <= limit:
            return codes, scale_value
    array = tensor.numpy()
    scales = channel_scales(array, axis, limit)
    codes = add_lazy_initializer(
        model,
        f"{name}_int8",
        "int8",
        array.shape,
        lambda: made_of(tensor, lambda numbers: quantize_channels(numbers, scales, axis, limit)),
    )
    codes.meta[ERROR] = relative_error(array, quantize_channels(array, scales, axis, limit), scales, axis)
    let_go(tensor)
    scale_value = add_initializer(model, f"{name}_scale", scales)
    matrix.meta.setdefault(_FORMS, []).append((codes, scale_value, axis, limit))
    return codes, scale_value


def int8_weight(
    model: ir.Model, linear: Linear, limit: int, dtype: type[np.int8] | type[np.uint8] = np.int8
) -> tuple[ir.Value, ir.Value]:
    """(codes ``[K, N]``, float32 scales ``[N]``) of a linear layer: per output channel, pairs within ``limit``.

    A weight stored transposed stays so (a tied embedding shares it) and is read through a Transpose, which the
    runtime folds when it loads the file.
    """
    codes, scales = int8_matrix(model, linear.weight, 0 if linear.transposed else 1, limit)
    codes = stored_as(model, codes, dtype)
    if linear.transposed:
        codes = insert(model, linear.node, "Transpose", [codes], perm=[1, 0])
    return codes, scales


def dequantized(model: ir.Model, node: ir.Node, index: int, axis: int) -> None:
    """Let the node read this constant, of any rank, through DequantizeLinear: int8 codes, one scale per slice."""
    weight = node.inputs[index]
    assert weight is not None
    codes, scales, zeros = _codes(model, weight, axis)
    node.replace_input_with(index, insert(model, node, "DequantizeLinear", [codes, scales, zeros], axis=axis))


def _codes(model: ir.Model, weight: ir.Value, axis: int) -> tuple[ir.Value, ir.Value, ir.Value]:
    """(codes of the full range, scales, zero points); a weight that several nodes read is stored once."""
    tensor, name = weight.const_value, f"{weight.name}_int8"
    assert tensor is not None
    known: list[tuple[ir.Value, ir.Value, ir.Value]] = weight.meta.setdefault(f"{_SLICES}{axis}", [])
    for found in known:
        if model.graph.initializers.get(str(found[0].name)) is found[0]:
            return found
    shape = dims(tensor)
    moved = shape[axis], *shape[:axis], *shape[axis + 1 :]

    def in_rows(numbers: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.moveaxis(numbers, axis, 0).reshape(shape[axis], -1)

    def load() -> NDArray[np.int8]:
        rounded = made_of(tensor, lambda numbers: quantize_channels(in_rows(numbers), scales, 0, FULL_RANGE))
        return np.ascontiguousarray(np.moveaxis(rounded.reshape(moved), 0, axis))

    rows = in_rows(tensor.numpy())
    scales = channel_scales(rows, 0, FULL_RANGE)
    codes = add_lazy_initializer(model, name, np.int8, shape, load)
    codes.meta[ERROR] = relative_error(rows, quantize_channels(rows, scales, 0, FULL_RANGE), scales, 0)
    let_go(tensor)
    scale_value = add_initializer(model, f"{codes.name}_scale", scales)
    zeros = add_initializer(model, f"{codes.name}_zero_point", np.zeros(shape[axis], np.int8))
    known.append((codes, scale_value, zeros))
    return codes, scale_value, zeros


def stored_as(model: ir.Model, codes: ir.Value, dtype: type[np.int8] | type[np.uint8]) -> ir.Value:
    """Int8 codes as they are, or a uint8 copy of them around 128."""
    tensor = codes.const_value
    assert tensor is not None
    if dtype is np.int8:
        return codes
    unsigned = add_lazy_initializer(
        model,
        str(codes.name).replace("_int8", "_uint8"),
        np.uint8,
        dims(tensor),
        lambda: tensor.numpy().view(np.uint8) ^ np.uint8(128),
    )
    unsigned.meta[ERROR] = codes.meta[ERROR]
    return unsigned


def add_gemm_bias(model: ir.Model, linear: Linear, product: ir.Value) -> ir.Value:
    """The product plus a Gemm's third input, which MatMul forms do not have."""
    bias = linear.node.inputs[2] if linear.node.op_type == "Gemm" and len(linear.node.inputs) > 2 else None
    return product if bias is None else insert(model, linear.node, "Add", [product, bias])
