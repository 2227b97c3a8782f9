"""What a graph's answers are compared by: where an output picks or joins values, those from which it does.

Rules
1. Behind NonMaxSuppression, TopK, ArgMax, ArgMin or NonZero the smallest difference may put another row in a place.
   What they choose by is compared instead, where no layer with weights comes behind them.
2. An output that Concat joins, be it moved afterwards, is compared part by part: a detector's boxes, in pixels, would
   hide its scores, which end at 1.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import onnx_ir as ir

from edgeq.formats.onnx.edit import constant, is_standard

_CHOOSING = {"NonMaxSuppression": 2, "TopK": 1, "ArgMax": 1, "ArgMin": 1, "NonZero": 1}  # inputs that decide
_WEIGHTED = frozenset(("MatMul", "Gemm", "Conv", "ConvTranspose", "LSTM", "GRU", "RNN"))
_MOVING = frozenset(("Identity", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten"))


@dataclass(frozen=True)
class Answers:
    """``inside``: names of float values of the main graph to compare; ``outputs``: outputs that they stand for."""

    inside: tuple[str, ...] = ()
    outputs: frozenset[str] = frozenset()


def find_answers(model: ir.Model) -> Answers:
    """By rules 1 and 2, of a graph whose types are inferred."""
    inside: dict[str, None] = {}
    outputs: set[str] = set()
    for node in model.graph:
        count = _CHOOSING.get(node.op_type, 0) if is_standard(node) else 0
        deciding = [value for value in node.inputs[:count] if _is_float(value)]
        if not deciding:
            continue
        behind = _behind(node)
        ends = {str(value.name) for value in behind if value.is_graph_output()}
        if ends and not any(_is_weighted(reader) for value in behind for reader, _ in value.uses()):
            inside.update((str(value.name), None) for value in deciding if value is not None)
            outputs |= ends
    for output in model.graph.outputs:
        parts = [] if str(output.name) in outputs else list(_parts(output))
        if len(parts) > 1 and all(_is_float(part) for part in parts):
            inside.update((str(part.name), None) for part in parts)
            outputs.add(str(output.name))
    return Answers(tuple(name for name in inside if name not in _names(model)), frozenset(outputs))


def _names(model: ir.Model) -> set[str]:
    return {str(value.name) for value in (*model.graph.outputs, *model.graph.inputs)}


def _is_float(value: ir.Value | None) -> bool:
    return value is not None and value.dtype == ir.DataType.FLOAT and constant(value) is None


def _is_weighted(node: ir.Node) -> bool:
    return node.op_type in _WEIGHTED and any(constant(value) is not None for value in node.inputs[1:])


def _behind(node: ir.Node) -> set[ir.Value]:
    """All values that depend on a node's outputs, those too."""
    found, waiting = set(node.outputs), list(node.outputs)
    while waiting:
        for reader, _ in waiting.pop().uses():
            new = set(reader.outputs) - found
            found |= new
            waiting += new
    return found


def _parts(value: ir.Value) -> Iterator[ir.Value]:
    """What a value is joined from; itself where it is not (rule 2)."""
    node = value.producer()
    if node is not None and is_standard(node):
        if node.op_type in _MOVING and node.inputs[0] is not None:
            parts = list(_parts(node.inputs[0]))
            yield from parts if len(parts) > 1 else [value]
            return
        if node.op_type == "Concat":
            for part in node.inputs:
                if part is not None and constant(part) is None:
                    yield from _parts(part)
            return
    yield value
