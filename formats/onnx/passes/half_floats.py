"""A float32 graph computed in float16, as GPUs do it fastest; what leaves the graph for its user stays float32.

For decoders and encoders that edgeq builds, with ONNX Runtime's operators and caches among them; ``half_compute`` does
it to any file, knows ONNX's own operators only, and leaves more in float32.

Rules
1. Float32 initializers, Constant and ConstantOfShape become float16. Numbers that it cannot hold, such as the -1e9 that
   hides a key, become ±60000: with something added they are still finite.
2. Cast to float32 becomes Cast to float16.
3. Angles stay float32: Cos and Sin, and what they are computed from. Positions are exact in float16 up to 2048 only.
4. ScatterND, which adds up what experts answer, stays float32: ONNX Runtime's CPU adds no float16 there.
5. Inputs and outputs of a cache, whose names begin with ``past_key_values`` and ``present``, become float16. Other
   float32 inputs and outputs keep their type, with a Cast inside.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import onnx_ir as ir

from edgeq.formats.onnx.edit import dims

_LARGEST = 60000.0
_ANGLES = ("Cos", "Sin")
_WIDE = {"ScatterND": (0, 2)}  # rule 4: and which of their inputs are floats
_CACHE = ("past_key_values", "present")
FLOAT, HALF = ir.DataType.FLOAT, ir.DataType.FLOAT16


def half_floats(model: ir.Model) -> int:
    """Rewrite the graph; how many tensors became float16. Graphs inside of nodes (Loop, If) stay as they are."""
    graph = model.graph
    kept = _kept_float(graph) | {node for node in graph if node.op_type in _WIDE}
    count = 0
    for value in list(graph.initializers.values()):
        if not value.is_graph_input() and not value.is_graph_output():
            count += _halve_initializer(value, kept)
    for node in list(graph):
        if node not in kept:
            _halve_node(node)
    _convert_edges(graph, kept)
    return count


def _kept_float(graph: ir.Graph) -> set[ir.Node]:
    """Rule 3."""
    kept: set[ir.Node] = set()
    waiting = [node for node in graph if node.op_type in _ANGLES]
    while waiting:
        node = waiting.pop()
        if node in kept:
            continue
        kept.add(node)
        for value in node.inputs:
            producer = None if value is None else value.producer()
            if producer is not None and value is not None and value.dtype in (FLOAT, None):
                waiting.append(producer)
    return kept


def _halve_initializer(value: ir.Value, kept: set[ir.Node]) -> int:
    """Rule 1, for a weight that only nodes in float16 read; one that angles read, too, stays, and is cast."""
    tensor = value.const_value
    users = [node for node, _ in value.uses()]
    if tensor is None or tensor.dtype != FLOAT or not users or any(node in kept for node in users):
        return 0
    value.const_value = ir.LazyTensor(
        lambda: _half(tensor), HALF, ir.Shape(dims(tensor)), name=str(value.name)
    )
    value.type = ir.TensorType(HALF)
    return 1


def _half(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
    return ir.Tensor(np.clip(tensor.numpy(), -_LARGEST, _LARGEST).astype(np.float16), name=tensor.name)


def _halve_node(node: ir.Node) -> None:
    """Rules 1 and 2, and the types of what a node gives."""
    if node.op_type == "Cast" and node.attributes["to"].as_int() == FLOAT:
        node.attributes["to"] = ir.AttrInt64("to", HALF)
    elif node.op_type in ("Constant", "ConstantOfShape") and "value" in node.attributes:
        tensor = node.attributes["value"].as_tensor()
        if tensor.dtype == FLOAT:
            node.attributes["value"] = ir.AttrTensor("value", _half(tensor))
    for value in node.outputs:
        if value.dtype == FLOAT:
            value.type = ir.TensorType(HALF)


def _convert_edges(graph: ir.Graph, kept: set[ir.Node]) -> None:
    """Casts where float32 meets float16: after angles, around rule 4, at inputs and outputs, and rule 5."""
    for node in [node for node in graph if node.op_type in _WIDE]:
        for index in _WIDE[node.op_type]:
            value = node.inputs[index]
            if value is not None and value.producer() not in kept and value.const_value is None:
                cast = _cast(value, FLOAT)
                graph.insert_before(node, cast)
                node.replace_input_with(index, cast.outputs[0])
    for value in list(_float_sources(graph, kept)):
        users = [(node, index) for node, index in value.uses() if node not in kept]
        if users:
            cast = _cast(value, HALF)
            graph.insert_before(_first(graph, users), cast)
            for node, index in users:
                node.replace_input_with(index, cast.outputs[0])
    for value in graph.inputs:
        if value.dtype == FLOAT and str(value.name).startswith(_CACHE):
            value.type = ir.TensorType(HALF)
    for index, value in enumerate(graph.outputs):
        if value.dtype == HALF and not str(value.name).startswith(_CACHE):
            cast = _cast(value, FLOAT)
            name, value.name = value.name, f"{value.name}_float16"
            cast.outputs[0].name, cast.outputs[0].shape = name, value.shape
            graph.append(cast)
            graph.outputs[index] = cast.outputs[0]


def _float_sources(graph: ir.Graph, kept: Iterable[ir.Node]) -> Iterator[ir.Value]:
    for node in kept:
        always = node.op_type in _ANGLES or node.op_type in _WIDE
        yield from (value for value in node.outputs if always or value.dtype == FLOAT)
    for value in graph.inputs:
        if value.dtype == FLOAT and not str(value.name).startswith(_CACHE):
            yield value
    for value in graph.initializers.values():
        if value.dtype == FLOAT:
            yield value


def _cast(value: ir.Value, to: ir.DataType) -> ir.Node:
    node = ir.node("Cast", [value], {"to": to}, name=f"{value.name}_to_{to.name.lower()}")
    node.outputs[0].name = f"{value.name}_{to.name.lower()}"
    node.outputs[0].type = ir.TensorType(to)
    return node


def _first(graph: ir.Graph, users: list[tuple[ir.Node, int]]) -> ir.Node:
    """The first of some nodes in the graph's order."""
    nodes = {node for node, _ in users}
    return next(node for node in graph if node in nodes)
