"""Finding the LSTMs of a graph whose weights are constants."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import onnx_ir as ir

from edgeq.formats.onnx.edit import attribute, constant, dims, is_standard


@dataclass(frozen=True)
class Lstm:
    """An LSTM with its weights ``[directions, 4 · hidden, inputs]`` and ``[directions, 4 · hidden, hidden]``."""

    node: ir.Node
    weight: ir.Value
    recurrence: ir.Value

    @property
    def name(self) -> str:
        """The node's own name, or its weight's where it has none."""
        return self.node.name or self.weight.name or "lstm"


def find_lstms(model: ir.Model) -> Iterator[Lstm]:
    """The LSTMs of the graph and its subgraphs with float32 constant weights and time as the first axis."""
    for node in model.graph.all_nodes():
        if not is_standard(node) or node.op_type != "LSTM" or attribute(node, "layout", 0):
            continue
        _, weight, recurrence = node.inputs[:3]
        if weight is not None and recurrence is not None and _usable(weight) and _usable(recurrence):
            yield Lstm(node, weight, recurrence)


def _usable(value: ir.Value) -> bool:
    tensor = constant(value)
    if tensor is None or tensor.dtype != ir.DataType.FLOAT or tensor.shape.rank() != 3:
        return False
    return all(dims(tensor))
