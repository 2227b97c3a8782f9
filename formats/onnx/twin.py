"""The layers of a float graph, and where they are in its quantized twin: found by the names that quantizers keep."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import onnx_ir as ir

from edgeq.formats.onnx.convolution import find_convolutions
from edgeq.formats.onnx.edit import attribute, is_standard, only_reader
from edgeq.formats.onnx.linear import find_linears
from edgeq.formats.onnx.passes.embedding_int8 import find_table

_TABLE_ROWS = 1024  # below, no quantizer bothers
_FLOATS = ("MatMul", "Gemm", "Conv", "ConvTranspose")
_OTHERS = (
    "MatMulInteger", "ConvInteger", "MatMulNBits", "MatMulBnb4", "QLinearMatMul", "QLinearConv", "QGemm",
    "DynamicQuantizeMatMul", "MatMulIntegerToFloat",
)  # fmt: skip
# What quantizers put between a product and the value that had its name, and before it.
_BETWEEN = ("Add", "Mul", "Cast", "QuantizeLinear", "DequantizeLinear", "Relu", "Clip", "Identity", "Reshape")
_BEFORE = ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "Cast", "Identity")
_DEPTH = 8


@dataclass(frozen=True)
class Layer:
    """A node of the float graph with a constant weight.

    ``x`` is what it reads, ``outputs`` the values that it gives: its own, then that of the only node that reads it.
    """

    kind: Literal["linear", "convolution", "table"]
    node: ir.Node
    weight: ir.Value
    x: str
    outputs: tuple[str, ...]
    transposed: bool = False  # a linear layer's weight is stored [N, K]

    @property
    def constant(self) -> ir.TensorProtocol:
        """The weight's values."""
        assert self.weight.const_value is not None
        return self.weight.const_value


@dataclass(frozen=True)
class Twin:
    """The node that multiplies in the quantized graph, None for a table.

    ``x`` is the value that it reads, before it is rounded; ``y`` the value that has the layer's output.
    """

    product: ir.Node | None
    x: str
    y: str

    @property
    def weight(self) -> ir.Value | None:
        """What the product multiplies with, where it multiplies floats."""
        node = self.product
        return node.inputs[1] if node is not None and node.op_type in _FLOATS and is_standard(node) else None

    @property
    def transposed(self) -> bool:
        """Whether that is ``[N, K]``."""
        return self.product is not None and bool(attribute(self.product, "transB", 0))


def layers_of(model: ir.Model) -> Iterator[Layer]:
    """Linear layers, convolutions and large tables of the main graph, in order of their kinds."""
    for linear in find_linears(model):
        if linear.node.graph is model.graph:
            outputs, x = _outputs(linear.node), str(linear.activation.name)
            yield Layer("linear", linear.node, linear.weight, x, outputs, linear.transposed)
    for one in find_convolutions(model):
        if one.node.graph is model.graph and one.node.inputs[0] is not None:
            yield Layer("convolution", one.node, one.weight, str(one.node.inputs[0].name), _outputs(one.node))
    for node in model.graph:
        table = find_table(node, _TABLE_ROWS)
        ids = node.inputs[1] if table is not None else None
        if table is not None and ids is not None:
            yield Layer("table", node, table, str(ids.name), (str(node.outputs[0].name),))


def _outputs(node: ir.Node) -> tuple[str, ...]:
    y, reader = node.outputs[0], only_reader(node.outputs[0])
    return str(y.name), *([str(reader.outputs[0].name)] if reader is not None else [])


def values_of(model: ir.Model) -> dict[str, ir.Value]:
    """The values of the main graph by name, without constants."""
    made = {str(value.name): value for node in model.graph for value in node.outputs}
    return {str(value.name): value for value in model.graph.inputs} | made


def find_twin(layer: Layer, values: Mapping[str, ir.Value]) -> Twin | None:
    """Where a layer is in the graph of ``values``; None where the names lead to no product."""
    y = next((name for name in layer.outputs if name in values), None)
    if y is None:
        return None
    if layer.kind == "table":
        return Twin(None, layer.x, y) if layer.x in values else None
    product = _product(values[y])
    x = None if product is None else _read(product, layer.x)
    return None if x is None else Twin(product, x, y)


def _read(product: ir.Node, wanted: str) -> str | None:
    """What a product reads before it is rounded: the value of that name, or what stands in its place."""
    value = product.inputs[0]
    for _ in range(_DEPTH):
        producer = value.producer() if value is not None else None
        if value is None or value.name == wanted or producer is None:
            break
        if producer.op_type not in _BEFORE and not _reorders(producer, wanted):
            break
        value = producer.inputs[0]
    return None if value is None else value.name


def _reorders(node: ir.Node, wanted: str) -> bool:
    """Whether a node puts the channels of that value in another order."""
    return node.op_type == "Gather" and node.inputs[0] is not None and node.inputs[0].name == wanted


def _product(value: ir.Value) -> ir.Node | None:
    """The nearest product before a value, through what quantizers put behind one."""
    near = [value]
    for _ in range(_DEPTH):
        producers = [node for node in (one.producer() for one in near) if node is not None]
        found = next((node for node in producers if node.op_type in (*_FLOATS, *_OTHERS)), None)
        if found is not None:
            return found
        near = [
            given
            for node in producers
            if node.op_type in _BETWEEN
            for given in node.inputs
            if given is not None and not given.is_initializer()
        ]
    return None
