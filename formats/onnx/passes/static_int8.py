"""Static int8 in QDQ form: activations are quantized to uint8 by ranges fixed beforehand.

Rules
1. A linear layer reads its activation through QuantizeLinear and DequantizeLinear (per tensor, uint8) and its
   weight through DequantizeLinear (per output channel, int8, zero point 0). Its output stays float, so ONNX Runtime
   fuses the group into MatMulIntegerToFloat, and softmax, norms and residual sums are never rounded.
2. Layers that read the same activation share one pair.
3. A Gemm becomes MatMul and Add: the fused int8 Gemm would want a quantized output.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from edgeq.formats.onnx.edit import add_initializer, check_opset, dims, insert, remove_unused, replace
from edgeq.formats.onnx.int8 import ActivationRange
from edgeq.formats.onnx.linear import find_linears
from edgeq.formats.onnx.passes.int8_weights import add_gemm_bias, int8_weight


def static_int8(model: ir.Model, limit: int, ranges: Mapping[str, ActivationRange]) -> int:
    """Rewrite the linear layers whose activation has a range, by value name; returns how many were rewritten."""
    check_opset(model)
    pairs: dict[ir.Value, ir.Value] = {}
    count = 0
    for linear in list(find_linears(model)):
        node, x = linear.node, linear.activation
        if x.name is None or x.name not in ranges:
            continue
        if x not in pairs:  # rule 2
            scale, zero = ranges[x.name].scale_and_zero_point()
            scale_value = add_initializer(model, f"{x.name}_scale", scale)
            zero_value = add_initializer(model, f"{x.name}_zero_point", zero)
            codes = insert(model, node, "QuantizeLinear", [x, scale_value, zero_value])
            pairs[x] = insert(model, node, "DequantizeLinear", [codes, scale_value, zero_value])
        weight_codes, scales = int8_weight(model, linear, limit)
        assert scales.const_value is not None
        zeros = add_initializer(
            model, f"{linear.weight.name}_zero_point", np.zeros(dims(scales.const_value), np.int8)
        )
        weight = insert(model, node, "DequantizeLinear", [weight_codes, scales, zeros], axis=1)
        y = add_gemm_bias(model, linear, insert(model, node, "MatMul", [pairs[x], weight]))
        replace(model, node.outputs[0], y)
        count += 1
    remove_unused(model)
    return count
