"""The nodes whose values can be watched from outside: which subgraphs ``watched_copy`` can bring values out of."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from edgeq.formats.onnx.edit import is_standard

# What a Scan gives is stacked, so it must have one shape in all rounds; these give another one each time.
_OF_ANY_LENGTH = frozenset(("NonZero", "Compress", "Unique", "Range", "NonMaxSuppression"))


def bodies(node: ir.Node) -> list[ir.Graph]:
    """The subgraphs of a node."""
    found = [one.as_graph() for one in node.attributes.values() if one.type == ir.AttributeType.GRAPH]
    return found + [
        graph
        for one in node.attributes.values()
        if one.type == ir.AttributeType.GRAPHS
        for graph in one.as_graphs()
    ]


def watchable_nodes(graph: ir.Graph, in_scan: bool = False) -> Iterator[ir.Node]:
    """The graph's nodes and those inside of If, Loop and Scan, at any depth.

    Left out are If and Loop inside of a Scan, whose values have no one shape, and Scans with such values.
    """
    for node in graph:
        yield node
        if not is_standard(node) or node.op_type not in (("Scan",) if in_scan else ("If", "Loop", "Scan")):
            continue
        for body in bodies(node):
            if node.op_type != "Scan":
                yield from watchable_nodes(body)
            elif not any(inner.op_type in _OF_ANY_LENGTH for inner in body):
                yield from watchable_nodes(body, in_scan=True)
