"""Which operators ONNX Runtime's CPU provider computes with 8-bit codes when they stand between Q and DQ.

After its selectors (onnxruntime/core/optimizer/qdq_transformer/selectors_actions/qdq_selector_action_transformer.cc):
QLinearConv, QLinearAdd, QLinearMul, QLinearConcat, QLinearAveragePool, QLinearGlobalAveragePool, QLinearSigmoid,
QLinearLeakyRelu, and a drop of the pairs around what only moves values. There is no kernel of ConvTranspose.
"""

from __future__ import annotations

import onnx_ir as ir

from edgeq.formats.onnx.branches import watchable_nodes
from edgeq.formats.onnx.convolution import Convolution, find_convolutions
from edgeq.formats.onnx.edit import attribute, constant, is_standard, only_reader
from edgeq.formats.onnx.linear import find_linears

# Their outputs have a grid of their own.
ROUNDED = frozenset(
    ("Add", "Mul", "Concat", "AveragePool", "GlobalAveragePool", "Sigmoid", "LeakyRelu"),
)
# Their outputs hold values of their first input.
MOVED = frozenset(
    (
        "Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze", "Slice", "Gather", "Split", "DepthToSpace",
        "SpaceToDepth", "MaxPool", "Resize",
    ),
)  # fmt: skip


def convolutions_by_node(model: ir.Model) -> dict[ir.Node, Convolution]:
    """The convolutions with an int8 kernel: Conv with a constant kernel, where its values can be watched."""
    seen = set(watchable_nodes(model.graph))
    return {c.node: c for c in find_convolutions(model) if not c.transposed and c.node in seen}


def only_moves(node: ir.Node) -> bool:
    """Whether all outputs hold nothing but values of the first input."""
    if not is_standard(node) or node.op_type not in MOVED:
        return False
    if node.op_type == "Resize":
        return str(attribute(node, "mode", "nearest")) == "nearest"
    return node.op_type != "MaxPool" or len(node.outputs) == 1  # the second output is where the maxima are


def activation_after(node: ir.Node) -> tuple[ir.Node, float, float] | None:
    """The Relu, or Clip from 0, that alone reads the node's output, with its bounds; codes have these, too."""
    reader = only_reader(node.outputs[0])
    if reader is None or not is_standard(reader) or reader.inputs[0] is not node.outputs[0]:
        return None
    if reader.op_type == "Relu":
        return reader, 0.0, float("inf")
    if reader.op_type != "Clip":
        return None
    low, high = (_number(reader, index) for index in (1, 2))
    if low != 0 or (high is None and len(reader.inputs) > 2 and reader.inputs[2] is not None):
        return None
    return reader, 0.0, float("inf") if high is None else high


def _number(node: ir.Node, index: int) -> float | None:
    tensor = constant(node.inputs[index]) if index < len(node.inputs) else None
    return None if tensor is None or tensor.size != 1 else float(tensor.numpy().reshape(-1)[0])


def values_to_watch(model: ir.Model) -> list[ir.Value]:
    """The values whose ranges static int8 wants, in the order of the graph, each once; all are floats."""
    seen = set(watchable_nodes(model.graph))
    linears = {linear.node for linear in find_linears(model)}
    convolutions = convolutions_by_node(model)
    reached: set[ir.Value] = set()  # what may come as codes
    found: dict[ir.Value, None] = {}
    for node in model.graph.all_nodes():
        if node not in seen:
            continue
        if node in linears or node in convolutions:
            found.update(dict.fromkeys(node.inputs[:1]))  # type: ignore[arg-type]
        rounded = is_standard(node) and node.op_type in ROUNDED and all(x in reached for x in node.inputs)
        if node in convolutions or rounded:
            after = activation_after(node)
            end = node.outputs[0] if after is None else after[0].outputs[0]
            found[end] = None
            reached.update((node.outputs[0], end))
        elif only_moves(node) and node.inputs[0] in reached:
            reached.update(node.outputs)
    return [value for value in found if constant(value) is None]
