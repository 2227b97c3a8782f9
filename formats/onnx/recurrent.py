"""Finding the recurrent layers of a graph whose weights are constants."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import onnx_ir as ir

from edgeq.formats.onnx.edit import attribute, constant, dims, is_standard

_OPERATORS = ("LSTM", "GRU", "RNN")


@dataclass(frozen=True)
class Recurrent:
    """An LSTM, GRU or RNN: ``weight [directions, gates · hidden, inputs]``, ``recurrence`` of as many by ``hidden``."""

    node: ir.Node
    weight: ir.Value
    recurrence: ir.Value

    @property
    def name(self) -> str:
        """The node's own name, or its weight's where it has none."""
        return self.node.name or self.weight.name or self.node.op_type.lower()

    @property
    def is_rounded_by_the_runtime(self) -> bool:
        """Whether ONNX Runtime has an int8 operator of it: of LSTMs with time as the first axis."""
        return self.node.op_type == "LSTM" and not attribute(self.node, "layout", 0)


def find_recurrents(model: ir.Model) -> Iterator[Recurrent]:
    """The LSTMs, GRUs and RNNs of the graph and its subgraphs with float32 constant weights."""
    for node in model.graph.all_nodes():
        if not is_standard(node) or node.op_type not in _OPERATORS:
            continue
        _, weight, recurrence = node.inputs[:3]
        if weight is not None and recurrence is not None and _usable(weight) and _usable(recurrence):
            yield Recurrent(node, weight, recurrence)


def find_lstms(model: ir.Model) -> Iterator[Recurrent]:
    """Those that ONNX Runtime computes with int8 weights."""
    return (layer for layer in find_recurrents(model) if layer.is_rounded_by_the_runtime)


def _usable(value: ir.Value) -> bool:
    tensor = constant(value)
    if tensor is None or tensor.dtype != ir.DataType.FLOAT or tensor.shape.rank() != 3:
        return False
    return all(dims(tensor))
