"""A graph of float16, bfloat16 or float64 computed in float32, which is what the other passes round.

Rules
1. Constants of these types become float32, when they are read; nodes that name one of them as the type they make
   (Cast, ConstantOfShape and the like) make float32.
2. Inputs and outputs of the graph keep their types, with a Cast behind or before them.
3. A weight that a Cast to float32 reads is that float32 weight; a graph that has no others so stays as it is.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgeq.formats.onnx.edit import constant, dims, free_name, is_standard, remove_unused
from edgeq.formats.onnx.rows import made_of

FLOAT = ir.DataType.FLOAT
_OTHERS = frozenset((ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.DOUBLE))
_TYPE_NAMES = ("to", "dtype")  # attributes


def widen(model: ir.Model) -> set[str]:
    """Rewrite the graph and its subgraphs; the names of the types that were computed in."""
    _skip_casts(model)
    found = {
        value.dtype.name.lower()
        for node in model.graph.all_nodes()
        if is_standard(node) and node.op_type != "Cast"
        for value in node.inputs
        if value is not None and _is_weight(value) and value.dtype is not None
    }
    if not found:
        return set()
    edges = {value: value.dtype for value in (*model.graph.inputs, *model.graph.outputs) if _is_other(value)}
    for graph in model.graphs():
        for value in graph.initializers.values():
            _widen_constant(value)
        values = (*graph.inputs, *graph.outputs, *(out for node in graph for out in node.outputs))
        for value in values:
            if _is_other(value) and value not in edges:
                value.dtype = FLOAT
        for node in graph:
            _make_floats(node)
    for value, dtype in edges.items():
        if value.is_graph_input():  # an output as it came, too, where it is one
            _cast_input(model, value)
        elif dtype is not None:
            _cast_output(model, value, dtype)
    return found


def _skip_casts(model: ir.Model) -> None:
    """Rule 3."""
    known: dict[ir.Value, ir.Value] = {}
    for node in list(model.graph.all_nodes()):
        value = node.inputs[0] if is_standard(node) and node.op_type == "Cast" else None
        if value is None or not _is_weight(value) or node.attributes["to"].as_int() != FLOAT:
            continue
        if node.outputs[0].is_graph_output():
            continue
        tensor = value.const_value
        assert tensor is not None
        if value not in known:
            wide = ir.Value(name=free_name(model, f"{value.name}_float32"), type=ir.TensorType(FLOAT))
            wide.shape, wide.const_value = ir.Shape(dims(tensor)), _floats(tensor)
            model.graph.register_initializer(wide)
            known[value] = wide
        node.outputs[0].replace_all_uses_with(known[value])
        assert node.graph is not None
        node.graph.remove(node, safe=True)
    remove_unused(model)


def _is_weight(value: ir.Value) -> bool:
    tensor = constant(value)
    return tensor is not None and tensor.dtype in _OTHERS and len(dims(tensor)) > 1


def _is_other(value: ir.Value) -> bool:
    return isinstance(value.type, ir.TensorType) and value.dtype in _OTHERS


def _widen_constant(value: ir.Value) -> None:
    """Rule 1."""
    tensor = value.const_value
    if tensor is None or tensor.dtype not in _OTHERS or value.is_graph_input():
        return
    value.const_value = _floats(tensor)
    value.dtype = FLOAT


def _floats(tensor: ir.TensorProtocol) -> ir.LazyTensor:
    """The same numbers in float32."""

    def load() -> ir.TensorProtocol:
        return ir.Tensor(made_of(tensor, lambda numbers: numbers.astype(np.float32)), name=tensor.name)

    return ir.LazyTensor(load, FLOAT, ir.Shape(dims(tensor)), name=tensor.name)


def _make_floats(node: ir.Node) -> None:
    """Rule 1."""
    for name, attribute in list(node.attributes.items()):
        if name in _TYPE_NAMES and attribute.type == ir.AttributeType.INT and attribute.as_int() in _OTHERS:
            node.attributes.add(ir.AttrInt64(name, FLOAT))
        elif attribute.type == ir.AttributeType.TENSOR and attribute.as_tensor().dtype in _OTHERS:
            node.attributes.add(ir.AttrTensor(name, ir.Tensor(_floats(attribute.as_tensor()).numpy())))


def _cast_input(model: ir.Model, value: ir.Value) -> None:
    """Rule 2."""
    cast = ir.node("Cast", [value], {"to": FLOAT}, name=f"{value.name}_to_float32")
    out = cast.outputs[0]
    out.name, out.type, out.shape = f"{value.name}_float32", ir.TensorType(FLOAT), value.shape
    for reader, index in list(value.uses()):
        if reader is not cast:
            reader.replace_input_with(index, out)
    model.graph.insert_before(model.graph[0], cast)


def _cast_output(model: ir.Model, value: ir.Value, dtype: ir.DataType) -> None:
    """Rule 2."""
    cast = ir.node("Cast", [value], {"to": dtype}, name=f"{value.name}_from_float32")
    out = cast.outputs[0]
    name, value.name = value.name, f"{value.name}_float32"
    out.name, out.type, out.shape = name, ir.TensorType(dtype), value.shape
    value.dtype = FLOAT
    for index, output in enumerate(model.graph.outputs):
        if output is value:
            model.graph.outputs[index] = out
    model.graph.append(cast)
