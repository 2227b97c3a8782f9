"""The int8 form of a linear layer's weight, shared by the dynamic and the static pass."""

from __future__ import annotations

import onnx_ir as ir

from edgeq.formats.onnx.edit import add_initializer, add_lazy_initializer, insert
from edgeq.formats.onnx.int8 import channel_scales, quantize_channels
from edgeq.formats.onnx.linear import Linear


def int8_weight(model: ir.Model, linear: Linear, limit: int) -> tuple[ir.Value, ir.Value]:
    """(int8 ``[K, N]``, float32 scales ``[N]``): per output channel, symmetric, in ``[-limit, limit]``.

    A weight stored transposed stays so (another node may share it) and is read through a Transpose, which the
    runtime folds when it loads the file.
    """
    tensor, name = linear.weight.const_value, linear.weight.name
    assert tensor is not None and name is not None
    axis = 0 if linear.transposed else 1
    scales = channel_scales(tensor.numpy(), axis, limit)
    codes = add_lazy_initializer(
        model,
        f"{name}_int8",
        "int8",
        [int(d) for d in tensor.shape],
        lambda: quantize_channels(tensor.numpy(), scales, axis, limit),
    )
    scale_value = add_initializer(model, f"{name}_scale", scales)
    if linear.transposed:
        codes = insert(model, linear.node, "Transpose", [codes], perm=[1, 0])
    return codes, scale_value


def add_gemm_bias(model: ir.Model, linear: Linear, product: ir.Value) -> ir.Value:
    """The product plus a Gemm's third input, which MatMul forms do not have."""
    bias = linear.node.inputs[2] if linear.node.op_type == "Gemm" and len(linear.node.inputs) > 2 else None
    return product if bias is None else insert(model, linear.node, "Add", [product, bias])
