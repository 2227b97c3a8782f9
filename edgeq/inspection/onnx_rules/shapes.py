"""Inputs and outputs that do not say what they are."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from edgeq.inspection.findings import Finding, note
from edgeq.inspection.onnx_lint import Target, rule


@rule
def shapes(model: ir.Model, target: Target) -> Iterator[Finding]:
    """An input or output without a shape: mobile and accelerated providers refuse or split such graphs."""
    for kind, values in (("input", model.graph.inputs), ("output", model.graph.outputs)):
        for value in values:
            if value.shape is None:
                yield note(
                    str(value.name), f"the {kind} says no shape", "export it with its rank and fixed sizes"
                )
