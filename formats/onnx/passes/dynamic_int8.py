"""Dynamic int8: activations are quantized to uint8 at run time, by the range that they have there.

Rules
1. A linear layer becomes DynamicQuantizeLinear, MatMulInteger, Cast, Mul by (activation scale x weight scales):
   the pattern that ONNX Runtime fuses into DynamicQuantizeMatMul or MatMulIntegerToFloat.
2. Layers that read the same activation share one DynamicQuantizeLinear.
3. A Gemm's bias is added afterwards, as an Add that the runtime fuses again.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import onnx_ir as ir

from edgeq.formats.onnx.edit import check_opset, insert, insert_many, remove_unused, replace
from edgeq.formats.onnx.int8 import PER_CHANNEL, Granularities
from edgeq.formats.onnx.linear import find_linears
from edgeq.formats.onnx.passes.int8_weights import add_gemm_bias, int8_weight


def dynamic_int8(
    model: ir.Model,
    limit: int,
    only: Collection[str] | None = None,
    granularity: Granularities = PER_CHANNEL,
) -> int:
    """Rewrite the linear layers (those named in ``only``, or all); returns how many were rewritten."""
    check_opset(model)
    quantized: dict[tuple[ir.Value, ir.Graph | ir.Function | None], Sequence[ir.Value]] = {}
    count = 0
    for linear in list(find_linears(model)):
        if only is not None and linear.name not in only:
            continue
        weight = int8_weight(model, linear, limit, granularity.of(linear.name))
        node, x = linear.node, linear.activation
        key = x, node.graph  # a subgraph's values are not seen outside of it
        if key not in quantized:  # rule 2
            quantized[key] = insert_many(model, node, "DynamicQuantizeLinear", [x], 3)
        x_codes, x_scale, x_zero = quantized[key]
        product = insert(model, node, "MatMulInteger", [x_codes, weight.codes, x_zero])
        real = insert(model, node, "Cast", [product], to=ir.DataType.FLOAT)
        scale = insert(model, node, "Mul", [x_scale, weight.scales])
        y = add_gemm_bias(model, linear, insert(model, node, "Mul", [real, scale]))
        replace(model, node.outputs[0], y)
        count += 1
    remove_unused(model)
    return count
