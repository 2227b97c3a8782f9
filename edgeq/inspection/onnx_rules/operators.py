"""Operators that a mobile build of chosen operators does not have."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from edgeq.inspection.findings import Finding, error
from edgeq.inspection.onnx_lint import Target, rule

_SHOWN = 3


@rule
def operators(model: ir.Model, target: Target) -> Iterator[Finding]:
    """What the graph needs after the runtime's optimizations, and the build's list does not name."""
    for key, name in target.lacks:
        nodes = [
            str(node.name or node.outputs[0].name) for node in model.graph.all_nodes() if node.op_type == name
        ]
        where = ", ".join(nodes[:_SHOWN]) + (
            f" and {len(nodes) - _SHOWN} more" if len(nodes) > _SHOWN else ""
        )
        domain, opset = key.split(";")
        yield error(
            where or "made by the runtime's optimizations",
            f"{name} ({domain}, opset {opset}) is not in the build",
            "build ONNX Runtime with the list that `edgeq quantize --ort` writes beside the file",
        )
