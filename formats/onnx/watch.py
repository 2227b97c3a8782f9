"""A copy of a graph that gives inner values as outputs, those inside of If, Loop and Scan too.

Rules
1. An If gets one more output. What a branch that did not run would have made comes as an array of shape ``[0]``.
2. A Loop carries a sequence, to which each round adds its value: these may have any shapes. The sequence goes on
   through inner loops and branches, so there is one for all rounds; a branch that did not run adds an array of shape
   ``[0]``.
3. A Scan gives the values of all rounds stacked along a new first axis.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from edgeq.formats.onnx.branches import bodies, watchable_nodes
from edgeq.formats.onnx.edit import free_name

_FLOATS = ir.TensorType(ir.DataType.FLOAT)
_LIST = ir.SequenceType(_FLOATS)


def watched_copy(model: ir.Model, names: Sequence[str]) -> tuple[ir.Model, dict[str, str]]:
    """(the copy, output by value name): float32 values of ``watchable_nodes`` become outputs, and what these read.

    Values inside of Loops come as sequences of arrays. Weights are shared with ``model``, which stays as it is.
    """
    copy = model.clone()
    watch = _Watch(copy)
    outputs = {}
    for name in names:
        value = watch.brought_out(name)
        if not any(value is output for output in copy.graph.outputs):
            copy.graph.outputs.append(value)
        outputs[name] = str(value.name)
    return copy, outputs


_Path = list[
    tuple[ir.Node, ir.Graph]
]  # the nodes with a body, each inside of the one before, and these bodies


class _Watch:
    def __init__(self, model: ir.Model) -> None:
        self.model = model
        given = (*model.graph.inputs, *model.graph.initializers.values())
        self.values: dict[str, ir.Value] = {str(value.name): value for value in given}
        self.owners: dict[ir.Graph, ir.Node] = {}
        for node in watchable_nodes(model.graph):
            self.values.update((str(value.name), value) for value in node.outputs)
            for body in bodies(node):
                self.owners[body] = node
                self.values.update((str(value.name), value) for value in body.inputs)

    def brought_out(self, name: str) -> ir.Value:
        """The value of that name, or an output of the main graph that has what it was."""
        value, path = self.values[name], _Path()
        if value.type is None:
            value.type = _FLOATS
        graph = value.graph
        while isinstance(graph, ir.Graph) and graph is not self.model.graph:
            owner = self.owners[graph]
            path.insert(0, (owner, graph))
            graph = owner.graph
        return self._seen(self.model.graph, path, value, None)

    def _seen(self, graph: ir.Graph, path: _Path, value: ir.Value, before: ir.Value | None) -> ir.Value:
        """What stands in ``graph`` for a value at the end of the path; where ``before`` is a sequence, that and it."""
        if not path:
            return value if before is None else self._appended(graph, "SequenceInsert", [before, value])
        through = {"If": self._if, "Loop": self._loop, "Scan": self._scan}[path[0][0].op_type]
        return through(graph, path, value, before)

    def _if(self, graph: ir.Graph, path: _Path, value: ir.Value, before: ir.Value | None) -> ir.Value:
        """Rule 1."""
        del graph
        (owner, branch), *rest = path
        inner = self._seen(branch, rest, value, before)
        branch.outputs.append(self._as_output(branch, inner))
        for other in bodies(owner):
            if other is not branch:
                other.outputs.append(
                    self._nothing(other, before, in_list=isinstance(inner.type, ir.SequenceType))
                )
        owner.resize_outputs(len(owner.outputs) + 1)
        return self._named(owner.outputs[-1], inner.type)

    def _nothing(self, branch: ir.Graph, before: ir.Value | None, in_list: bool) -> ir.Value:
        if in_list and before is None:
            return self._appended(branch, "SequenceEmpty", [], dtype=ir.DataType.FLOAT)
        empty = self._appended(branch, "Constant", [], value=ir.Tensor(np.zeros(0, np.float32)))
        return empty if before is None else self._appended(branch, "SequenceInsert", [before, empty])

    def _loop(self, graph: ir.Graph, path: _Path, value: ir.Value, before: ir.Value | None) -> ir.Value:
        """Rule 2."""
        (loop, body), *rest = path
        if before is None:
            empty = ir.node("SequenceEmpty", [], {"dtype": ir.DataType.FLOAT})
            graph.insert_before(loop, empty)
            before = self._named(empty.outputs[0], _LIST)
        carried = self._named(ir.Value(), _LIST)
        body.inputs.append(carried)
        found = self._seen(body, rest, value, carried)
        loop.resize_inputs(max(3, len(loop.inputs) + 1))
        loop.replace_input_with(len(loop.inputs) - 1, before)
        place = len(loop.inputs) - 3  # behind what is carried so far, before what is stacked
        body.outputs.insert(1 + place, found)
        return self._named(self._new_output(loop, place), _LIST)

    def _new_output(self, node: ir.Node, place: int) -> ir.Value:
        """Make an output at this place; those from there on move up by one."""
        node.resize_outputs(len(node.outputs) + 1)
        for index in range(len(node.outputs) - 1, place, -1):
            old, new = node.outputs[index - 1], node.outputs[index]
            new.name, new.type, new.shape, old.name = old.name, old.type, old.shape, None
            old.replace_all_uses_with(new, replace_graph_outputs=True)
            self.values[str(new.name)] = new
        return node.outputs[place]

    def _scan(self, graph: ir.Graph, path: _Path, value: ir.Value, before: ir.Value | None) -> ir.Value:
        """Rule 3."""
        (scan, body), *rest = path
        body.outputs.append(self._as_output(body, self._seen(body, rest, value, None)))
        scan.resize_outputs(len(scan.outputs) + 1)
        for name in ("scan_output_axes", "scan_output_directions"):
            if name in scan.attributes:
                scan.attributes.add(ir.AttrInt64s(name, [*scan.attributes[name].as_ints(), 0]))
        stacked = self._named(scan.outputs[-1], _FLOATS)
        return self._seen(graph, [], stacked, before)

    def _as_output(self, body: ir.Graph, value: ir.Value) -> ir.Value:
        """The value, or a copy of one that is an input of the body or an output already."""
        if value.producer() is not None and not value.is_graph_output():
            return value
        return self._appended(body, "Identity", [value])

    def _appended(
        self, graph: ir.Graph, op_type: str, inputs: Sequence[ir.Value], **attributes: Any
    ) -> ir.Value:
        """What a new node at the end of a graph gives."""
        made = ir.node(op_type, inputs, attributes or None)
        graph.append(made)
        return self._named(made.outputs[0], _LIST if op_type.startswith("Sequence") else _FLOATS)

    def _named(self, value: ir.Value, kind: ir.TypeProtocol | None) -> ir.Value:
        value.name, value.type = free_name(self.model, "edgeq_seen"), kind
        return value
