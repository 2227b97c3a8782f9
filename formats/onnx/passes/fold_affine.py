"""What scales and shifts the channels after a convolution becomes part of its kernel and bias.

Rules
1. Conv or ConvTranspose with a constant kernel, then BatchNormalization with constant parameters: the kernel of
   channel c is multiplied by ``scale / sqrt(variance + epsilon)``, the bias follows.
2. The same before Mul, Div, Add or Sub with a constant of one number a channel, or one number at all.
3. Only where nothing else reads the convolution's output. A kernel that others share is copied.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgeq.formats.onnx.convolution import Convolution, find_convolutions
from edgeq.formats.onnx.edit import (
    add_initializer,
    attribute,
    constant,
    dims,
    is_standard,
    only_reader,
    remove_unused,
)


@dataclass(frozen=True)
class _Affine:
    """``y = x * factors + shifts`` for each channel ``[M]``."""

    factors: NDArray[np.float64]
    shifts: NDArray[np.float64]


def fold_affine(model: ir.Model) -> int:
    """Fold until nothing more can be; returns how many nodes went."""
    count = 0
    for convolution in list(find_convolutions(model)):
        while (follower := only_reader(convolution.node.outputs[0])) is not None:  # rule 3
            affine = _affine(follower, convolution)
            if affine is None:
                break
            convolution = _fold(model, convolution, affine)
            _drop(follower, convolution.node.outputs[0])
            count += 1
    remove_unused(model)
    return count


def _affine(node: ir.Node, convolution: Convolution) -> _Affine | None:
    """What a node does to the channels, or None where it is something else."""
    if not is_standard(node):
        return None
    if node.op_type == "BatchNormalization":
        return _batch_norm(node, convolution)
    if node.op_type in ("Mul", "Div", "Add", "Sub"):
        return _elementwise(node, convolution)
    return None


def _batch_norm(node: ir.Node, convolution: Convolution) -> _Affine | None:
    """Rule 1."""
    if any(output.uses() or output.is_graph_output() for output in node.outputs[1:]):
        return None  # training
    tensors = [constant(value) for value in node.inputs[1:5]]
    scale, bias, mean, variance = (
        np.zeros(0) if tensor is None else tensor.numpy().astype(np.float64) for tensor in tensors
    )
    if any(vector.shape != (convolution.channels,) for vector in (scale, bias, mean, variance)):
        return None
    factors = scale / np.sqrt(variance + attribute(node, "epsilon", 1e-5))
    return _Affine(factors, bias - mean * factors)


def _elementwise(node: ir.Node, convolution: Convolution) -> _Affine | None:
    """Rule 2."""
    first = node.inputs[0] is convolution.node.outputs[0]
    tensor = constant(node.inputs[1 if first else 0])
    if tensor is None or tensor.dtype != ir.DataType.FLOAT or (node.op_type in ("Sub", "Div") and not first):
        return None
    spatial = [1] * (len(dims(convolution.tensor)) - 2)
    shape = list(dims(tensor))
    one_number = len(shape) <= 2 + len(spatial) and all(size == 1 for size in shape)
    if not one_number and shape not in (
        [convolution.channels, *spatial],
        [1, convolution.channels, *spatial],
    ):
        return None
    values = np.broadcast_to(tensor.numpy().astype(np.float64).reshape(-1), (convolution.channels,))
    ones, zeros = np.ones_like(values), np.zeros_like(values)
    match node.op_type:
        case "Mul":
            return _Affine(values, zeros)
        case "Div":
            return _Affine(1 / values, zeros) if values.all() else None
        case "Add":
            return _Affine(ones, values)
        case _:
            return _Affine(ones, -values)


def _fold(model: ir.Model, convolution: Convolution, affine: _Affine) -> Convolution:
    """Put the new kernel and bias in."""
    node, name = convolution.node, str(convolution.weight.name).removesuffix("_folded")
    factors = convolution.per_channel(affine.factors.astype(np.float32))
    weight = add_initializer(model, f"{name}_folded", (convolution.array() * factors).astype(np.float32))
    tensor = constant(convolution.bias)
    before = np.zeros(1) if tensor is None else tensor.numpy().astype(np.float64)
    bias = (before * affine.factors + affine.shifts).astype(np.float32)
    node.replace_input_with(1, weight)
    if tensor is not None or bias.any():
        node.resize_inputs(3)
        node.replace_input_with(2, add_initializer(model, f"{name}_folded_bias", bias))
    return Convolution(node, weight)


def _drop(follower: ir.Node, kept: ir.Value) -> None:
    """Let the convolution's output stand for what the folded node made, under its name."""
    gone = follower.outputs[0]
    name, gone.name = gone.name, None
    kept.name, kept.type = name, gone.type or kept.type
    kept.shape = kept.shape if gone.shape is None else gone.shape
    gone.replace_all_uses_with(kept, replace_graph_outputs=True)
    assert follower.graph is not None
    follower.graph.remove(follower, safe=True)
