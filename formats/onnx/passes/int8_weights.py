"""The int8 form of a constant, shared by the passes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgeq.formats.onnx.edit import ERROR, add_initializer, add_lazy_initializer, dims, insert
from edgeq.formats.onnx.int8 import (
    FULL_RANGE,
    Granularity,
    quantize_channels,
    relative_error,
    weight_scales,
)
from edgeq.formats.onnx.linear import Linear
from edgeq.formats.onnx.rows import let_go, made_of

_FORMS = "edgeq.int8_forms"  # key of a float initializer's meta: its (form, axis, granularity, limit) so far

Floats = NDArray[np.float32]
Weight = type[np.int8] | type[np.uint8]


@dataclass(frozen=True)
class Int8:
    """A constant as codes with symmetric scales: one per slice along ``axis``, or where that is None one of all."""

    name: str
    codes: ir.Value
    scales: ir.Value
    axis: int | None
    dtype: Weight = np.int8

    def zeros(self, model: ir.Model) -> ir.Value:
        """The zero points, shaped as the scales."""
        assert self.scales.const_value is not None
        middle = 0 if self.dtype is np.int8 else 128
        zeros = np.full(dims(self.scales.const_value), middle, self.dtype)
        return add_initializer(model, f"{self.name}_zero_point", zeros)

    def floats(self, model: ir.Model, before: ir.Node) -> ir.Value:
        """The constant as it comes out of a DequantizeLinear."""
        return dequantized(model, before, [self.codes, self.scales, self.zeros(model)], self.axis)


def dequantized(model: ir.Model, before: ir.Node, parts: list[ir.Value], axis: int | None) -> ir.Value:
    """What comes out of a DequantizeLinear of (codes, scales, zero points); ``axis`` None: there is one scale."""
    attributes: dict[str, Any] = {} if axis is None else {"axis": axis}
    return insert(model, before, "DequantizeLinear", parts, **attributes)


def int8_constant(
    model: ir.Model,
    weight: ir.Value,
    axis: int,
    limit: int = FULL_RANGE,
    granularity: Granularity = "channel",
    dtype: Weight = np.int8,
    fit: Callable[[Floats, Floats], Floats] | None = None,
) -> Int8:
    """A constant of any rank as codes in its own layout, channels along ``axis``.

    Neighbours within ``limit`` are those of the first other axis, which is innermost in ONNX Runtime's kernels. ``fit``
    makes other scales of the constant's rows ``[channels, summed]`` and the scales that were found.

    Codes are computed when the model is saved; a constant that two nodes share is stored once, unless they want scales
    of other channels, or the second a smaller limit than the first.
    """
    known = None if fit is not None else _known(model, weight, axis, limit, granularity)
    if known is None:
        known = _made(model, weight, axis, limit, granularity, fit)
        if fit is None:
            weight.meta.setdefault(_FORMS, []).append((known, axis, granularity, limit))
    return known if dtype is np.int8 else replace(known, codes=_unsigned(model, known.codes), dtype=dtype)


def int8_weight(
    model: ir.Model,
    linear: Linear,
    limit: int,
    granularity: Granularity = "channel",
    dtype: Weight = np.int8,
) -> Int8:
    """The weight of a linear layer as codes ``[K, N]``, pairs of neighbours along K within ``limit``.

    A weight stored transposed stays so (a tied embedding shares it) and is read through a Transpose, which the
    runtime folds when it loads the file.
    """
    found = int8_constant(model, linear.weight, int(not linear.transposed), limit, granularity, dtype)
    if not linear.transposed:
        return found
    codes = insert(model, linear.node, "Transpose", [found.codes], perm=[1, 0])
    return replace(found, codes=codes, axis=None if found.axis is None else 1)


def int8_input(model: ir.Model, node: ir.Node, index: int, axis: int, granularity: Granularity) -> None:
    """Let the node read this constant through DequantizeLinear: int8 codes of the full range."""
    weight = node.inputs[index]
    assert weight is not None
    codes = int8_constant(model, weight, axis, granularity=granularity)
    node.replace_input_with(index, codes.floats(model, node))


def _known(model: ir.Model, weight: ir.Value, axis: int, limit: int, granularity: Granularity) -> Int8 | None:
    """The form that another reader wanted, where it does for this one."""
    for found, known_axis, known_granularity, known_limit in weight.meta.get(_FORMS, ()):
        here = model.graph.initializers.get(found.codes.name) is found.codes
        same = known_axis == axis and known_granularity == granularity
        if here and same and known_limit <= limit:
            known: Int8 = found
            return known
    return None


def _made(
    model: ir.Model,
    weight: ir.Value,
    axis: int,
    limit: int,
    granularity: Granularity,
    fit: Callable[[Floats, Floats], Floats] | None,
) -> Int8:
    tensor, name = weight.const_value, str(weight.name)
    assert tensor is not None
    shape = dims(tensor)
    rows, along = _rows(tensor.numpy(), axis)
    scales = weight_scales(rows, along, limit, granularity)
    if fit is not None:
        scales = fit(rows, scales)

    def load() -> NDArray[np.int8]:
        def rounded(array: Floats) -> NDArray[np.int8]:
            return quantize_channels(_rows(array, axis)[0], scales, along, limit)

        return _from_rows(made_of(tensor, rounded), shape, axis)

    codes = add_lazy_initializer(model, f"{name}_int8", np.int8, shape, load)
    codes.meta[ERROR] = relative_error(rows, quantize_channels(rows, scales, along, limit), scales, along)
    let_go(tensor)
    return Int8(name, codes, add_initializer(model, f"{name}_scale", scales), axis if scales.ndim else None)


def _order(rank: int, axis: int) -> tuple[int, ...]:
    """Channels, then what is summed, innermost last."""
    first, *others = (number for number in range(rank) if number != axis)
    return axis, *others, first


def _rows(array: Floats, axis: int) -> tuple[Floats, int]:
    """(a matrix, its axis of channels); one of rank 2 as it is."""
    if array.ndim == 2:
        return array, axis
    return array.transpose(_order(array.ndim, axis)).reshape(array.shape[axis], -1), 0


def _from_rows(codes: NDArray[np.int8], shape: tuple[int, ...], axis: int) -> NDArray[np.int8]:
    if len(shape) == 2:
        return codes
    order = _order(len(shape), axis)
    folded = codes.reshape([shape[number] for number in order])
    return np.ascontiguousarray(folded.transpose(np.argsort(order)))


def _unsigned(model: ir.Model, codes: ir.Value) -> ir.Value:
    """A uint8 copy of int8 codes, around 128."""
    tensor = codes.const_value
    assert tensor is not None

    def load() -> NDArray[Any]:
        return tensor.numpy().view(np.uint8) ^ np.uint8(128)

    name = str(codes.name).replace("_int8", "_uint8")
    unsigned = add_lazy_initializer(model, name, np.uint8, dims(tensor), load)
    unsigned.meta[ERROR] = codes.meta[ERROR]
    return unsigned


def add_gemm_bias(model: ir.Model, linear: Linear, product: ir.Value) -> ir.Value:
    """The product plus a Gemm's third input, which MatMul forms do not have."""
    bias = linear.node.inputs[2] if linear.node.op_type == "Gemm" and len(linear.node.inputs) > 2 else None
    return product if bias is None else insert(model, linear.node, "Add", [product, bias])
