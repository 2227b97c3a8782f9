"""The nodes whose values can be watched from outside: those of the main graph and of the branches of If nodes."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from edgeq.formats.onnx.edit import is_standard


def nodes_outside_loops(graph: ir.Graph) -> Iterator[ir.Node]:
    """The graph's nodes and those of If branches, at any depth, without the bodies of Loop and Scan."""
    for node in graph:
        yield node
        if node.op_type == "If" and is_standard(node):
            for attribute in node.attributes.values():
                if attribute.type == ir.AttributeType.GRAPH:
                    yield from nodes_outside_loops(attribute.as_graph())
