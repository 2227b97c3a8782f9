"""Weights stored in float8 (E4M3), arithmetic in float32: a quarter of the size, errors of some 2.5 %.

Rules
1. A float32 initializer of at least two axes and 1024 numbers becomes DequantizeLinear of float8e4m3fn codes, which
   ONNX has from opset 19 on.
2. The scale makes the largest magnitude 448, the largest number there is: one for each output channel (axis 0 of a
   Conv's kernel and of a Gather's table, 1 of a ConvTranspose's, the outputs of a MatMul's or Gemm's matrix), or one
   for all where it is asked for, or where readers disagree.
3. Left float: what ``keep`` names, outputs of the graph, and tensors with a NaN or an infinity.

ONNX Runtime dequantizes such a weight at every run; with ``session.disable_quant_qdq`` once, when it loads the file.
"""

from __future__ import annotations

from collections.abc import Callable

import ml_dtypes
import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgeq.formats.onnx.edit import ERROR, add_initializer, attribute, dims, free_name, is_standard
from edgeq.formats.onnx.int8 import Granularity
from edgeq.formats.onnx.passes.raise_opset import raise_opset
from edgeq.formats.onnx.rows import made_of
from edgeq.formats.rounding_error import RoundingError

_OPSET = 19
_LEAST = 1024
_LARGEST = np.float32(448)
_FLOAT8 = np.dtype(ml_dtypes.float8_e4m3fn)
_AXES = {("Conv", 1): 0, ("ConvTranspose", 1): 1, ("MatMul", 1): -1, ("Gather", 0): 0}


def float8_weights(
    model: ir.Model, granularity: Granularity = "channel", keep: Callable[[str], bool] = lambda name: False
) -> tuple[int, list[str]]:
    """(how many tensors are stored in float8, which of the large ones rule 3 left)."""
    raise_opset(model, _OPSET)
    count, kept = 0, []
    for name, value in list(model.graph.initializers.items()):
        tensor = value.const_value
        if (
            tensor is None
            or tensor.dtype != ir.DataType.FLOAT
            or tensor.size < _LEAST
            or len(dims(tensor)) < 2
        ):
            continue
        if value.is_graph_input() or value.is_graph_output() or not value.uses():
            continue
        if keep(name) or not np.isfinite(tensor.numpy()).all():
            kept.append(name)
            continue
        axis = _channel_axis(value, len(dims(tensor))) if granularity == "channel" else None
        _store(model, value, tensor, axis)
        count += 1
    return count, kept


def _channel_axis(value: ir.Value, rank: int) -> int | None:
    """The output channels' axis for all that read the tensor, None where there is no such one (rule 2)."""
    axes = {_axis(node, index) for node, index in value.uses()}
    axis = axes.pop() if len(axes) == 1 else None
    return None if axis is None else axis % rank


def _axis(node: ir.Node, index: int) -> int | None:
    if not is_standard(node):
        return None
    if node.op_type == "Gemm" and index == 1:
        return 0 if attribute(node, "transB", 0) else 1
    if node.op_type == "Transpose" and len(node.outputs[0].uses()) == 1:
        (reader, place) = next(iter(node.outputs[0].uses()))
        turned = list(attribute(node, "perm", [1, 0])) == [1, 0]
        return 0 if turned and reader.op_type == "MatMul" and place == 1 else None
    return _AXES.get((node.op_type, index))


def _scales(array: NDArray[np.float32], axis: int | None) -> NDArray[np.float32]:
    """Shaped so that they multiply the array, ``axis`` being its channels'."""
    others = None if axis is None else tuple(a for a in range(array.ndim) if a != axis)
    largest = np.abs(array).max(axis=others, keepdims=axis is not None)
    return np.where(largest > 0, largest / _LARGEST, np.float32(1)).astype(np.float32)


def _store(model: ir.Model, value: ir.Value, tensor: ir.TensorProtocol, axis: int | None) -> None:
    """Rule 1."""
    name, shape = str(value.name), ir.Shape(dims(tensor))
    array = tensor.numpy()
    scales = _scales(array, axis)
    codes_name = free_name(model, f"{name}_float8")

    def codes() -> NDArray[np.generic]:
        return made_of(tensor, lambda numbers: (numbers / scales).astype(_FLOAT8))

    lazy = ir.LazyTensor(
        lambda: ir.Tensor(codes(), name=codes_name), ir.DataType.FLOAT8E4M3FN, shape, name=codes_name
    )
    stored = ir.Value(
        name=codes_name, type=ir.TensorType(ir.DataType.FLOAT8E4M3FN), shape=shape, const_value=lazy
    )
    model.graph.register_initializer(stored)
    stored.meta[ERROR] = RoundingError.of(array, codes().astype(np.float32) * scales).relative
    scale = add_initializer(model, f"{name}_scale", scales.reshape(-1) if axis is not None else scales)
    node = ir.node(
        "DequantizeLinear",
        [stored, scale],
        {} if axis is None else {"axis": axis},
        name=f"{name}_dequantized",
    )
    out = node.outputs[0]
    value.replace_all_uses_with(out)
    del model.graph.initializers[name]
    value.name = None
    out.name, out.type, out.shape = name, ir.TensorType(ir.DataType.FLOAT), shape
    model.graph.insert_before(model.graph[0], node)
