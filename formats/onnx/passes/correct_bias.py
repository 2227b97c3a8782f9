"""Bias correction: what rounding the weights shifts every output by, on average, is taken back by the bias.

After Nagel et al. 2019 (arXiv:1906.04721), section 4.2, with the mean of the input measured: rounding W to V moves
output n by ``sum_k (V - W)[k, n] · E[x_k]``, which the bias of n is lowered by.

Rules
1. A Gemm, or a MatMul whose output only an Add of a constant vector reads: the vector is corrected.
2. A Conv: its bias is corrected; one without gets one, which costs nothing. Means are those of the input channels, so
   the border, where zeros are read, is taken for the rest.
3. A MatMul without an Add stays as it is: an addition more costs more than it gives.
4. A bias that others read, too, is copied.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgeq.formats.onnx.convolution import Convolution, find_convolutions
from edgeq.formats.onnx.edit import (
    add_initializer,
    constant,
    dims,
    remove_unused,
    sole_addition,
)
from edgeq.formats.onnx.int8 import (
    FULL_RANGE,
    PER_CHANNEL,
    Granularities,
    Granularity,
    quantize_channels,
    weight_scales,
)
from edgeq.formats.onnx.linear import Linear, find_linears

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]


def correct_biases(
    model: ir.Model,
    limit: int,
    means: Mapping[str, Doubles],
    only: Collection[str] | None = None,
    granularity: Granularities = PER_CHANNEL,
) -> int:
    """Correct the biases of the layers named in ``only``, or all, in a graph of floats that is about to be rounded.

    ``means`` are those of each input channel, by value name; ``limit`` and ``granularity`` are those of the passes that
    round. Returns how many biases were corrected.
    """
    count = 0
    linears = list(find_linears(model))
    rows = {linear.activation for linear in linears}
    for linear in linears:
        mean = means.get(str(linear.activation.name))
        if (
            (only is None or linear.name in only)
            and mean is not None
            and mean.shape == (linear.inputs_width,)
        ):
            shared = granularity.of(linear.name)
            count += _correct_linear(model, linear, limit, mean, shared)
    for convolution in list(find_convolutions(model)):
        node = convolution.node
        mean = means.get(str(node.inputs[0].name)) if node.inputs[0] is not None else None
        if node.inputs[0] in rows:  # their means are those of another axis
            continue
        if (only is None or node.name in only) and mean is not None and not convolution.transposed:
            shared = granularity.of(str(node.name))
            count += _correct_convolution(model, convolution, limit, mean, shared)
    remove_unused(model)
    return count


def _correct_linear(
    model: ir.Model, linear: Linear, limit: int, mean: Doubles, granularity: Granularity
) -> bool:
    """Rules 1 and 3."""
    node, place = _bias_of(linear)
    bias = node.inputs[place] if node is not None and place < len(node.inputs) else None
    tensor = constant(bias)
    if node is None or bias is None or tensor is None or dims(tensor)[-1:] != (linear.outputs_width,):
        return False
    if tensor.size != linear.outputs_width or tensor.dtype != ir.DataType.FLOAT:
        return False
    matrix = linear.matrix()
    shift = mean @ _rounding(matrix, 1, limit, granularity)
    values = (tensor.numpy() - shift.reshape(dims(tensor))).astype(np.float32)
    node.replace_input_with(place, add_initializer(model, f"{bias.name}_corrected_{linear.name}", values))
    return True


def _bias_of(linear: Linear) -> tuple[ir.Node | None, int]:
    """(the node that adds the bias, which of its inputs it is)."""
    if linear.node.op_type == "Gemm":
        return linear.node, 2
    return sole_addition(linear.node.outputs[0]) or (None, 0)


def _correct_convolution(
    model: ir.Model, convolution: Convolution, limit: int, mean: Doubles, granularity: Granularity
) -> bool:
    """Rule 2."""
    node, array = convolution.node, convolution.array()
    outputs, per_group = array.shape[:2]
    if mean.shape != (per_group * convolution.groups,):
        return False
    rows = np.moveaxis(array, 1, -1).reshape(outputs, -1)
    limit = FULL_RANGE if convolution.depthwise else limit
    moved = _rounding(rows, 0, limit, granularity).reshape(outputs, -1, per_group)
    seen = np.repeat(mean.reshape(convolution.groups, per_group), outputs // convolution.groups, axis=0)
    shift = np.einsum("mkc,mc->m", moved, seen)
    tensor = constant(convolution.bias)
    before = np.zeros(outputs) if tensor is None else tensor.numpy().astype(np.float64)
    name = str(convolution.weight.name if convolution.bias is None else convolution.bias.name)
    node.resize_inputs(3)
    values = (before - shift).astype(np.float32)
    node.replace_input_with(2, add_initializer(model, f"{name}_corrected_{node.name}", values))
    return True


def _rounding(matrix: Floats, axis: int, limit: int, granularity: Granularity) -> Doubles:
    """What rounding adds to each weight."""
    scales = weight_scales(matrix, axis, limit, granularity)
    codes = quantize_channels(matrix, scales, axis, limit)
    rounded = codes.astype(np.float64) * (np.expand_dims(scales, 1 - axis) if scales.ndim else scales)
    return rounded - matrix
