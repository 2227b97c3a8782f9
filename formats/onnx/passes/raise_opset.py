"""Opsets 11 and 12 brought to 13, where DequantizeLinear has a scale per channel.

Between them only these operators mean something else (onnx/docs/Changelog.md); all others took more types.

Rules
1. Squeeze, Unsqueeze and ReduceSum take their axes, and Split its sizes, as an input instead of an attribute.
2. Dropout takes its ratio as an input. It does nothing outside of training, so the attribute goes.
3. Softmax, LogSoftmax and Hardmax work along one axis, where before they flattened the axes from ``axis`` on (1
   where none was given). Along the last axis that is the same; else the input is flattened and shaped back.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgeq.formats.onnx.edit import add_initializer, insert, is_standard

OPSET = 13
_ATTRIBUTE_TO_INPUT = {"Squeeze": "axes", "Unsqueeze": "axes", "ReduceSum": "axes", "Split": "split"}
_ALONG_AN_AXIS = ("Softmax", "LogSoftmax", "Hardmax")


def raise_opset(model: ir.Model) -> bool:
    """Bring an opset of 11 or 12 to 13; returns whether it was one."""
    if model.opset_imports.get("", OPSET) >= OPSET:
        return False
    for node in list(model.graph.all_nodes()):
        if not is_standard(node):
            continue
        if node.op_type in _ATTRIBUTE_TO_INPUT:
            _move(model, node, _ATTRIBUTE_TO_INPUT[node.op_type])  # rule 1
        elif node.op_type == "Dropout":
            node.attributes.pop("ratio", None)  # rule 2
        elif node.op_type in _ALONG_AN_AXIS:
            _along_one_axis(model, node)  # rule 3
    model.graph.opset_imports[""] = OPSET
    model.ir_version = max(model.ir_version or 0, 7)  # what belongs to opset 13
    return True


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
