"""Pairs of QuantizeLinear and DequantizeLinear that round and win nothing."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from edgeq.formats.onnx.edit import is_standard
from edgeq.formats.onnx.placement import MOVED, ROUNDED
from edgeq.inspection.findings import Finding, warning
from edgeq.inspection.onnx_lint import Target, rule

_INT8_KERNELS = ROUNDED | MOVED | {"Conv", "MatMul", "Gemm", "Softmax", "Where", "ArgMax"}


@rule
def idle_pairs(model: ir.Model, target: Target) -> Iterator[Finding]:
    """A pair between two operators of which neither has an int8 kernel: two passes over the data, and an error."""
    for node in model.graph.all_nodes():
        if node.op_type != "DequantizeLinear" or not is_standard(node) or node.inputs[0] is None:
            continue
        quantize = node.inputs[0].producer()
        if quantize is None or quantize.op_type != "QuantizeLinear" or quantize.inputs[0] is None:
            continue
        before = quantize.inputs[0].producer()
        after = [reader.op_type for reader in node.outputs[0].consumers()]
        if (before is not None and before.op_type in _INT8_KERNELS) or any(
            op in _INT8_KERNELS for op in after
        ):
            continue
        first = "an input" if before is None else before.op_type
        between = f"between {first} and {', '.join(after) or 'an output'}"
        yield warning(
            str(quantize.inputs[0].name),
            f"is rounded to 8 bits and back {between}, which have no int8 kernel",
            "remove the pair",
        )
