"""Cross-layer equalisation: channels between two convolutions are scaled until they fill the codes alike.

After Nagel et al. 2019 (arXiv:1906.04721), section 4.1. Every output channel of a kernel has a scale of its own here,
so what suffers from unlike channels is the activation between the two, with one scale for all, and the second kernel.
The scale of channel j is ``sqrt(max|x_j| / max|w_j|)`` with the measured x and the second kernel's w, as
SmoothQuant has it with a norm in the first one's place.

Rules
1. A Conv, then nodes that keep channels and factors (Relu, LeakyRelu, MaxPool, AveragePool, GlobalAveragePool), each
   read by nobody else, then a Conv: channel j of the first kernel and bias is divided by s_j, what the second one
   reads of it is multiplied by s_j.
2. A depthwise second Conv has a scale for each input channel: there s_j is ``max|x_j|``, and its kernel rounds alike.
3. Kernels that others read, too, are copied. Grouped convolutions that are not depthwise stay as they are, and so does
   a channel in which nothing was seen or which nothing reads.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgeq.formats.onnx.convolution import Convolution, find_convolutions
from edgeq.formats.onnx.edit import add_initializer, constant, is_standard, only_reader, remove_unused

_KEEP_CHANNELS = frozenset(("Relu", "LeakyRelu", "MaxPool", "AveragePool", "GlobalAveragePool"))
_TINY = 1e-6
_FURTHEST = 1e4  # scales lie between 1 / this and this
Floats = NDArray[np.float32]


def equalizable(model: ir.Model) -> list[ir.Value]:
    """The values whose largest magnitudes per channel (axis 1) ``equalize`` can use."""
    return [x for x, _, _ in _pairs(model)]


def equalize(model: ir.Model, channel_max: Mapping[str, Floats]) -> int:
    """Scale the channels between convolutions by what was seen in the second one's input, given by value name.

    Returns between how many pairs that was.
    """
    count = 0
    for x, first, second in _pairs(model):
        seen = channel_max.get(str(x.name))
        if seen is None or seen.shape != (first.channels,):
            continue
        scales = _scales(seen, _now(second))
        _scale_kernel(model, _now(first), np.float32(1) / scales, axis=0)
        _scale_bias(model, first, np.float32(1) / scales)
        _scale_kernel(model, _now(second), scales, axis=0 if second.depthwise else 1)
        count += 1
    remove_unused(model)
    return count


def _pairs(model: ir.Model) -> list[tuple[ir.Value, Convolution, Convolution]]:
    """Rule 1: (what the second one reads, the first convolution, the second)."""
    known = {c.node: c for c in find_convolutions(model) if not c.transposed}
    found = []
    for first in known.values():
        value = first.node.outputs[0]
        reader = only_reader(value)
        while reader is not None and _keeps_channels(reader):
            value = reader.outputs[0]
            reader = only_reader(value)
        second = known.get(reader) if reader is not None else None
        if second is None or second.node.inputs[0] is not value or second.node is first.node:
            continue
        if second.groups == 1 or second.depthwise:  # rule 3
            found.append((value, first, second))
    return found


def _keeps_channels(node: ir.Node) -> bool:
    return is_standard(node) and node.op_type in _KEEP_CHANNELS and len(node.outputs) == 1


def _now(convolution: Convolution) -> Convolution:
    """The convolution with the kernel that its node reads by now."""
    weight = convolution.node.inputs[1]
    assert weight is not None
    return Convolution(convolution.node, weight)


def _scales(seen: Floats, second: Convolution) -> Floats:
    """Rules 1 and 2, around a geometric mean of 1."""
    kernel = np.abs(second.array())
    weights = kernel.max(axis=tuple(axis for axis in range(kernel.ndim) if axis != 1))
    usable = seen > _TINY
    wanted = seen.astype(np.float64)
    if not second.depthwise:
        usable &= weights > _TINY
        wanted = np.sqrt(wanted / np.maximum(weights, _TINY))
    if not usable.any():
        return np.ones_like(seen)
    middle = np.exp(np.log(wanted[usable]).mean())
    scales = np.clip(wanted / middle, 1 / _FURTHEST, _FURTHEST)
    return np.where(usable, scales, 1).astype(np.float32)


def _scale_kernel(model: ir.Model, convolution: Convolution, factors: Floats, axis: int) -> None:
    """Multiply a kernel along its output channels (axis 0) or its input channels (axis 1)."""
    array = convolution.array()
    shape = [-1 if number == axis else 1 for number in range(array.ndim)]
    name = f"{convolution.weight.name}_equal"
    weight = add_initializer(model, name, (array * factors.reshape(shape)).astype(np.float32))
    convolution.node.replace_input_with(1, weight)


def _scale_bias(model: ir.Model, convolution: Convolution, factors: Floats) -> None:
    bias = convolution.bias
    tensor = constant(bias)
    if bias is None or tensor is None:
        return
    values = (tensor.numpy() * factors).astype(np.float32)
    convolution.node.replace_input_with(2, add_initializer(model, f"{bias.name}_equal", values))
