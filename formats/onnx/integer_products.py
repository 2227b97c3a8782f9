"""Finding the products of 8-bit codes in a quantized graph, with weights in the order in which they are summed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgeq.formats.onnx.branches import watchable_nodes
from edgeq.formats.onnx.edit import attribute, constant


@dataclass(frozen=True)
class Product:
    """A node that multiplies codes, and what its codes are made from.

    ``scale`` and ``zero`` are those of the activation, None where the runtime finds them at each run.
    """

    node: ir.Node
    activation: ir.Value  # floats
    weights: NDArray[np.generic]  # codes [outputs, summed]
    scale: NDArray[np.float32] | None
    zero: NDArray[np.generic] | None

    @property
    def name(self) -> str:
        """The node's name, or that of its output."""
        return str(self.node.name or self.node.outputs[0].name)


def find_products(model: ir.Model) -> Iterator[Product]:
    """The products that can be watched whose activation is uint8 and whose weights are int8."""
    for node in watchable_nodes(model.graph):
        weights = weight_codes(node)
        if weights is None or weights.dtype != np.int8:
            continue
        found = _dynamic(node) if node.op_type == "MatMulInteger" else _static(node)
        if found is not None:
            activation, scale, zero = found
            yield Product(node, activation, weights, scale, zero)


def weight_codes(node: ir.Node) -> NDArray[Any] | None:
    """Codes ``[outputs, summed]`` of a node's weight in the order in which they are summed, None where it has none.

    A depthwise Conv has none: it is summed in 32 bits everywhere.
    """
    if node.op_type == "MatMulInteger":
        tensor = constant(node.inputs[1])
        return None if tensor is None or len(tensor.shape) != 2 else tensor.numpy().T
    if node.op_type not in ("Conv", "MatMul", "Gemm") or not all(map(_dequantized, node.inputs[:2])):
        return None
    weight = node.inputs[1]
    assert weight is not None
    producer = weight.producer()
    assert producer is not None
    source, flipped = producer.inputs[0], False
    before = source.producer() if source is not None else None
    if before is not None and before.op_type == "Transpose":
        source, flipped = before.inputs[0], True
    tensor = constant(source)
    if tensor is None:
        return None
    codes = tensor.numpy()
    if node.op_type == "Conv":
        depthwise = int(attribute(node, "group", 1)) == len(codes) and codes.shape[1] == 1
        return None if depthwise else np.moveaxis(codes, 1, -1).reshape(len(codes), -1)
    stored_by_output = bool(attribute(node, "transB", 0)) != flipped
    return None if codes.ndim != 2 else codes if stored_by_output else codes.T


def _dequantized(value: ir.Value | None) -> bool:
    producer = value.producer() if value is not None else None
    return producer is not None and producer.op_type == "DequantizeLinear"


_Found = tuple[ir.Value, NDArray[np.float32] | None, NDArray[np.generic] | None]


def _static(node: ir.Node) -> _Found | None:
    """What goes through a QuantizeLinear of one uint8 scale into the node, past nodes that only move codes' values."""
    value: ir.Value | None = node.inputs[0]
    back = value.producer() if value is not None else None
    codes = back.inputs[0] if back is not None else None
    forth = codes.producer() if codes is not None else None
    if back is None or forth is None or forth.op_type != "QuantizeLinear" or forth.inputs[0] is None:
        return None
    scale, zero = constant(forth.inputs[1]), constant(forth.inputs[2] if len(forth.inputs) > 2 else None)
    if scale is None or zero is None or scale.size != 1 or zero.dtype != ir.DataType.UINT8:
        return None
    return forth.inputs[0], scale.numpy(), zero.numpy()


def _dynamic(node: ir.Node) -> _Found | None:
    value = node.inputs[0]
    producer = value.producer() if value is not None else None
    if producer is None or producer.op_type != "DynamicQuantizeLinear" or producer.inputs[0] is None:
        return None
    return producer.inputs[0], None, None
