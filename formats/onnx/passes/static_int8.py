"""Static int8 in QDQ form: activations are quantized to uint8 by ranges fixed beforehand.

Rules
1. A linear layer reads its activation through QuantizeLinear and DequantizeLinear (per tensor, uint8 or int8) and
   its weight through DequantizeLinear (per output channel or per tensor, symmetric). Its output stays float, so ONNX
   Runtime fuses the group into MatMulIntegerToFloat, and softmax, norms and residual sums are never rounded.
2. Layers that read the same activation share one pair; what comes out of a DequantizeLinear needs none.
3. A Gemm stays one, its bias in int32 codes of the scale activation x weight: that is QGemm, which gives floats.
4. A MatMul over rank 2 and the Add of a constant vector behind it become a Gemm, too: ONNX Runtime would make one of
   them before it looks for int8, and its float bias would keep it in float. So does a MatMul of rank 2 that another
   Add alone reads, such as that of a recurrent cell, without a bias.
5. An activation in ``wide`` gets 16 bits: ONNX Runtime then multiplies floats; other runtimes have kernels for it.
6. A bias that is no constant vector or has no good int32 codes: the Gemm becomes MatMul and Add.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgeq.formats.onnx.edit import (
    add_initializer,
    check_opset,
    constant,
    dims,
    insert,
    qdq_domain,
    remove_unused,
    replace,
    sole_addition,
)
from edgeq.formats.onnx.int8 import (
    PER_CHANNEL,
    TINY,
    U8S8,
    ActivationRange,
    Codes,
    Granularities,
    Granularity,
    Types,
)
from edgeq.formats.onnx.linear import Linear, find_linears
from edgeq.formats.onnx.passes.int8_weights import add_gemm_bias, dequantized, int8_constant, int8_weight

_LARGEST_BIAS = 2.0**30
_Place = tuple[ir.Value, "ir.Graph | ir.Function | None"]


def static_int8(
    model: ir.Model,
    limit: int,
    ranges: Mapping[str, ActivationRange],
    types: Types = U8S8,
    only: Collection[str] | None = None,
    wide: Collection[str] = (),
    granularity: Granularities = PER_CHANNEL,
) -> int:
    """Rewrite the linear layers (those named in ``only``, or all) whose activation has a range, by value name.

    ``wide`` names the activations of 16 bits, ``granularity`` is of weights. Returns how many were rewritten.
    """
    check_opset(model)
    pairs: dict[_Place, ir.Value] = {}
    count = 0
    for linear in list(find_linears(model)):
        node, x = linear.node, linear.activation
        if only is not None and linear.name not in only:
            continue
        place = x, node.graph  # a subgraph's values are not seen outside of it
        if place not in pairs:  # rule 2
            pair = _pair(model, node, x, ranges, types.wide if x.name in wide else types.activation)
            if pair is None:
                continue
            pairs[place] = pair
        shared = granularity.of(linear.name)
        if not _as_gemm(model, linear, pairs[place], limit, types, shared):
            _as_matmul(model, linear, pairs[place], limit, types, shared)
        count += 1
    remove_unused(model)
    return count


def _as_matmul(
    model: ir.Model, linear: Linear, x: ir.Value, limit: int, types: Types, granularity: Granularity
) -> None:
    """Rules 1 and 6."""
    node = linear.node
    weight = int8_weight(model, linear, limit, granularity, types.weight).floats(model, node)
    y = add_gemm_bias(model, linear, insert(model, node, "MatMul", [x, weight]))
    replace(model, node.outputs[0], y)


def _as_gemm(
    model: ir.Model, linear: Linear, x: ir.Value, limit: int, types: Types, granularity: Granularity
) -> bool:
    """Rules 3 and 4; False where rule 6 holds, or where there is no Gemm in sight."""
    node, add = linear.node, None
    bias = node.inputs[2] if node.op_type == "Gemm" and len(node.inputs) > 2 else None
    if node.op_type == "MatMul":
        add, bias = _added_vector(linear)
        if add is None and not (_has_rank_2(linear) and sole_addition(node.outputs[0])):
            return False
    tensor = constant(bias)
    width = linear.outputs_width
    if bias is not None and (tensor is None or dims(tensor) not in ((width,), (1, width))):
        return False
    weight = int8_constant(model, linear.weight, int(not linear.transposed), limit, granularity, types.weight)
    inputs: list[ir.Value | None] = [x]
    bias_parts: list[ir.Value] = []
    if tensor is not None:
        bias_parts = _bias_codes(model, linear, tensor.numpy().reshape(-1), x, weight.scales)
        if not bias_parts:
            return False
    inputs.append(weight.floats(model, node))
    if tensor is not None:
        inputs.append(dequantized(model, node, bias_parts, None if weight.axis is None else 0))
    y = insert(model, node, "Gemm", inputs, transB=int(linear.transposed))
    if add is None:
        replace(model, node.outputs[0], y)
    else:
        replace(model, add.outputs[0], y)
        assert node.graph is not None
        node.graph.remove(node, safe=True)
    return True


def _has_rank_2(linear: Linear) -> bool:
    shape = linear.activation.shape
    return shape is not None and len(shape) == 2


def _added_vector(linear: Linear) -> tuple[ir.Node | None, ir.Value | None]:
    """The Add of a constant vector that alone reads a MatMul of rank 2, and the vector."""
    found = sole_addition(linear.node.outputs[0])
    if not _has_rank_2(linear) or found is None:
        return None, None
    add, place = found
    bias = add.inputs[place]
    tensor = constant(bias)
    if tensor is None or dims(tensor) != (linear.outputs_width,) or tensor.dtype != ir.DataType.FLOAT:
        return None, None
    return add, bias


def _bias_codes(
    model: ir.Model, linear: Linear, bias: NDArray[np.float32], x: ir.Value, scales: ir.Value
) -> list[ir.Value]:
    """Codes and scales of a bias, or nothing where a channel's scale is too small or too large for its number."""
    producer = x.producer()
    assert producer is not None
    x_scale, weight_scales = constant(producer.inputs[1]), constant(scales)
    assert x_scale is not None
    assert weight_scales is not None
    wanted = x_scale.numpy().astype(np.float64) * weight_scales.numpy()
    codes = np.rint(bias / wanted)
    empty = (linear.largest_weights() < TINY) & (bias != 0)
    if empty.any() or wanted.min(initial=1) < TINY or np.abs(codes).max(initial=0) > _LARGEST_BIAS:
        return []
    name = f"{linear.weight.name}_bias_{linear.node.name or linear.node.outputs[0].name}"
    return [
        add_initializer(model, f"{name}_int32", codes.astype(np.int32)),
        add_initializer(model, f"{name}_scale", wanted.astype(np.float32)),
    ]


def _pair(
    model: ir.Model, node: ir.Node, x: ir.Value, ranges: Mapping[str, ActivationRange], dtype: Codes
) -> ir.Value | None:
    """The dequantized codes of ``x``, or None where its range is not known."""
    producer = x.producer()
    if producer is not None and producer.op_type == "DequantizeLinear":
        return x
    if x.name is None or x.name not in ranges:
        return None
    scale, zero = ranges[x.name].scale_and_zero_point(dtype)
    domain = qdq_domain(model, dtype)
    scale_value = add_initializer(model, f"{x.name}_scale", scale)
    zero_value = add_initializer(model, f"{x.name}_zero_point", zero)
    codes = insert(model, node, "QuantizeLinear", [x, scale_value, zero_value], domain)
    return insert(model, node, "DequantizeLinear", [codes, scale_value, zero_value], domain)
