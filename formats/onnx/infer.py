"""Shapes and types where ONNX knows them. What stands in the way of that is no reason to refuse a graph."""

from __future__ import annotations

import contextlib

import onnx
import onnx_ir as ir

from edgeq.formats.onnx.stream import without_weights


def infer_shapes(model: ir.Model) -> None:
    """Note types and shapes of inner values, subgraphs' too; where inference fails, all stays as it was.

    Weights are not read. Unlike onnx_ir's own pass it keeps sequences and optional values what they are.
    """
    with contextlib.suppress(Exception):  # what it raises has no common type, and a graph runs without them
        inferred = onnx.shape_inference.infer_shapes(without_weights(model))
        for graph, known in zip(model.graphs(), ir.from_proto(inferred).graphs(), strict=True):
            _merge(graph, known)


def _merge(graph: ir.Graph, known: ir.Graph) -> None:
    values = {value.name: value for node in known for value in node.outputs}
    for value in (value for node in graph for value in node.outputs):
        found = values.get(value.name)
        if found is None or not value.name:
            continue
        value.type = found.type or value.type
        value.shape = value.shape if found.shape is None else found.shape
