"""Opsets brought to a later one: 13, where DequantizeLinear has a scale per channel, 21, where it has blocks, or later.

Between 11 and 25 only these operators mean something else (onnx/docs/Changelog.md); all others took more types, or
attributes whose default is what they did.

Rules
1. Axes, and Split's sizes, become an input instead of an attribute: Squeeze, Unsqueeze, ReduceSum and Split with 13,
   the other Reduce operators with 18.
2. Dropout takes its ratio as an input from 12 on. It does nothing outside of training, so the attribute goes.
3. Softmax, LogSoftmax and Hardmax work along one axis from 13 on, where before they flattened the axes from ``axis``
   on (1 where none was given). Along the last axis that is the same; else the input is flattened and shaped back.
4. Split into equal parts says with 18 how many.
5. GridSample's modes have other names with 20.
6. GroupNormalization takes a scale for each channel with 21, where it had one for each group: that is an error.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgeq.formats.errors import EdgeqError
from edgeq.formats.onnx.builder import ir_version_of
from edgeq.formats.onnx.edit import add_initializer, insert, is_standard

OPSET = 13
_TO_INPUT = {  # rule 1: the opset since which it is so
    ("Squeeze", "axes"): 13,
    ("Unsqueeze", "axes"): 13,
    ("ReduceSum", "axes"): 13,
    ("Split", "split"): 13,
    **{
        (f"Reduce{kind}", "axes"): 18
        for kind in ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "SumSquare")
    },
}
_ALONG_AN_AXIS = ("Softmax", "LogSoftmax", "Hardmax")
_GRID_MODES = {"bilinear": "linear", "bicubic": "cubic"}


def raise_opset(model: ir.Model, opset: int = OPSET) -> bool:
    """Bring an earlier opset, from 11 on, to this one; returns whether it was earlier. Raises EdgeqError (rule 6)."""
    old = model.opset_imports.get("", opset)
    if old >= opset:
        return False
    for node in list(model.graph.all_nodes()):
        if is_standard(node):
            _raise(model, node, old, opset)
    model.graph.opset_imports[""] = opset
    model.ir_version = max(model.ir_version or 0, ir_version_of(opset))
    return True


def _raise(model: ir.Model, node: ir.Node, old: int, new: int) -> None:
    kind = node.op_type
    for (op_type, name), since in _TO_INPUT.items():
        if kind == op_type and old < since <= new:
            _move(model, node, name)
    if kind == "Dropout" and old < 12:
        node.attributes.pop("ratio", None)
    elif kind in _ALONG_AN_AXIS and old < 13 <= new:
        _along_one_axis(model, node)
    elif kind == "Split" and old < 18 <= new and len(node.inputs) < 2:
        node.attributes["num_outputs"] = ir.AttrInt64("num_outputs", len(node.outputs))
    elif kind == "GridSample" and old < 20 <= new and "mode" in node.attributes:
        mode = node.attributes["mode"].as_string()
        node.attributes["mode"] = ir.AttrString("mode", _GRID_MODES.get(mode, mode))
    elif kind == "GroupNormalization" and old < 21 <= new:
        raise EdgeqError(
            f"the graph has ONNX opset {old} and GroupNormalization, which {new} defines otherwise; export it anew"
        )


def _move(model: ir.Model, node: ir.Node, name: str) -> None:
    attribute = node.attributes.pop(name, None)
    if attribute is not None:
        numbers = np.array(attribute.as_ints(), np.int64)
        key = f"{name}_{'_'.join(map(str, numbers))}"
        node.resize_inputs(2)
        node.replace_input_with(1, add_initializer(model, key, numbers))


def _along_one_axis(model: ir.Model, node: ir.Node) -> None:
    attribute = node.attributes.get("axis")
    axis = 1 if attribute is None else attribute.as_int()
    x = node.inputs[0]
    assert x is not None
    last = axis == -1 or (x.shape is not None and axis == len(x.shape) - 1)
    if not last:
        shape = insert(model, node, "Shape", [x])
        node.replace_input_with(0, insert(model, node, "Flatten", [x], axis=axis))
        output = node.outputs[0]
        back = ir.node("Reshape", [output, shape])
        assert node.graph is not None
        node.graph.insert_after(node, back)
        _take_over(output, back)
    node.attributes["axis"] = ir.AttrInt64("axis", -1)


def _take_over(old: ir.Value, node: ir.Node) -> None:
    """Let the consumers of ``old`` read the node that was put after it; it takes the name, too."""
    new = node.outputs[0]
    new.name, new.type, new.shape = old.name, old.type, old.shape
    old.name, old.shape = f"{old.name}_flat", None
    old.replace_all_uses_with(new, replace_graph_outputs=True)
    node.replace_input_with(0, old)
