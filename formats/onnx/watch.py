"""A copy of a graph that gives inner values as outputs, those of If branches too."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from edgeq.formats.onnx.branches import nodes_outside_loops


def watched_copy(model: ir.Model, names: Sequence[str]) -> tuple[ir.Model, dict[str, str]]:
    """(the copy, output by value name): float32 values of the main graph or of If branches become outputs.

    What a branch that did not run would have made comes as an array of shape ``[0]``. Weights are shared with
    ``model``, which stays as it is.
    """
    copy = model.clone()
    given = (*copy.graph.inputs, *copy.graph.initializers.values())
    values: dict[str, ir.Value] = {str(value.name): value for value in given}
    owners: dict[ir.Graph, ir.Node] = {}
    for node in nodes_outside_loops(copy.graph):
        values.update((str(value.name), value) for value in node.outputs)
        for attribute in node.attributes.values():
            if attribute.type == ir.AttributeType.GRAPH:
                owners[attribute.as_graph()] = node
    outputs = {}
    for name in names:
        value = _to_main_graph(copy, values[name], owners)
        if not any(value is output for output in copy.graph.outputs):
            copy.graph.outputs.append(value)
        outputs[name] = str(value.name)
    return copy, outputs


def _to_main_graph(model: ir.Model, value: ir.Value, owners: dict[ir.Graph, ir.Node]) -> ir.Value:
    """The value itself, or the output of an If that passes it on, through all levels."""
    number = 0
    while True:
        if value.type is None:
            value.type = ir.TensorType(ir.DataType.FLOAT)
        graph = value.graph
        assert isinstance(graph, ir.Graph)
        if graph is model.graph:
            return value
        value = _through(owners[graph], graph, value, f"{value.name}_seen{number}")
        number += 1


def _through(branching: ir.Node, graph: ir.Graph, value: ir.Value, name: str) -> ir.Value:
    """A new output of an If: the value where its branch ran, else nothing of shape ``[0]``."""
    for attribute in branching.attributes.values():
        branch = attribute.as_graph()
        if branch is graph:
            branch.outputs.append(value)
            continue
        tensor = ir.Tensor(np.zeros(0, np.float32))
        nothing = ir.node("Constant", [], {"value": tensor})
        nothing.outputs[0].name = f"{name}_not"
        nothing.outputs[0].type, nothing.outputs[0].shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape([0])
        branch.append(nothing)
        branch.outputs.append(nothing.outputs[0])
    branching.resize_outputs(len(branching.outputs) + 1)
    out = branching.outputs[-1]
    out.name, out.type = name, ir.TensorType(ir.DataType.FLOAT)
    return out
