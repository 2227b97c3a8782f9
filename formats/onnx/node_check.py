"""Whether nodes have the inputs, outputs and attributes that ONNX says of their operators: passes rely on it."""

from __future__ import annotations

from collections.abc import Iterator

import onnx
import onnx_ir as ir

from edgeq.formats.onnx.edit import is_standard

_Option = onnx.defs.OpSchema.FormalParameterOption


def faults(model: ir.Model) -> Iterator[str]:
    """What is wrong with the nodes of graph, subgraphs and functions, and with what graphs give; a line for each.

    Operators of other domains than ONNX's own are taken as they are, but for calls of the file's own functions.
    """
    opset = model.opset_imports.get("", 1)
    for node in model.graph.all_nodes():
        yield from _faults_of(node, opset, model)
    for function in model.functions.values():
        own = function.opset_imports.get("", opset)
        if own != opset:
            yield f"has ONNX opset {opset}, its function {function.name} {own}"
        for node in function.all_nodes():
            yield from _faults_of(node, own, model)
    for graph in model.graphs():
        for value in graph.outputs:
            if value.producer() is None and not value.is_graph_input() and not value.is_initializer():
                yield f"gives {value.name}, which nothing makes"


def _faults_of(node: ir.Node, opset: int, model: ir.Model) -> Iterator[str]:
    names = [node.op_type, node.domain, node.name, *(value.name for value in node.outputs)]
    if not all(name is None or isinstance(name, str) for name in names):  # protobuf gives bytes then
        yield "has a node whose name is no UTF-8 text"
        return
    what = f"node {node.name or (node.outputs[0].name if node.outputs else '')} ({node.op_type})"
    function = model.functions.get(node.op_identifier())
    if function is not None:
        for kind, have, most in (
            ("inputs", len(node.inputs), len(function.inputs)),
            ("outputs", len(node.outputs), len(function.outputs)),
        ):
            if have > most:
                yield f"{what} has {have} {kind}, its function {most}"
    elif is_standard(node):
        try:
            schema = onnx.defs.get_schema(node.op_type, opset)
        except onnx.defs.SchemaError:  # an operator of later opsets, or none at all: the runtime says so
            return
        yield from _against(node, schema, what)


def _against(node: ir.Node, schema: onnx.defs.OpSchema, what: str) -> Iterator[str]:
    for kind, have, least, most in (
        ("inputs", len(node.inputs), schema.min_input, schema.max_input),
        ("outputs", len(node.outputs), schema.min_output, schema.max_output),
    ):
        if not least <= have <= most:
            wanted = (
                str(least) if least == most else f"{least} or more" if have < least else f"at most {most}"
            )
            yield f"{what} has {have} {kind}, ONNX wants {wanted}"
    if node.op_type == "Constant" and len(node.attributes) != 1:
        yield f"{what} has {len(node.attributes)} values, ONNX wants 1"
    for value, parameter in zip(node.inputs, schema.inputs, strict=False):
        if value is None and parameter.option == _Option.Single:
            yield f"{what} lacks its input {parameter.name}"
    for name, attribute in schema.attributes.items():
        if attribute.required and name not in node.attributes:
            yield f"{what} lacks its attribute {name}"
    for name, given in node.attributes.items():
        known = schema.attributes.get(name)
        kind = "" if known is None else str(known.type).rpartition(".")[2]
        if not kind:
            yield f"{what} has an attribute {name}, which ONNX does not know"
        elif given.type.name != kind:
            yield f"{what} has {name} as {given.type.name}, ONNX wants {kind}"
