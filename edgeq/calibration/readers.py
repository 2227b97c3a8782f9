"""What the nodes that read an input say of it: numbers it is compared with, tables that it picks from, its role."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np
import onnx_ir as ir

from edgeq.formats.onnx.edit import dims

# A waveform, a picture with its colours first or last, one that the graph brings from 0..255 to what it wants, the
# state of a recurrent layer, or anything else.
Role = Literal["numbers", "sound", "picture", "pixels", "state"]

_PASSED_ON = frozenset(("Cast", "Identity", "Squeeze", "Unsqueeze", "Reshape"))
_COMPARING = frozenset(("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"))
# On the way to a convolution or a recurrent layer: what moves, shifts or scales values.
_ON_THE_WAY = frozenset(
    (
        *_PASSED_ON, "Add", "BatchNormalization", "Clip", "Concat", "Div", "Flatten", "Gather", "Mul", "Pad", "Resize",
        "Slice", "Split", "Sub", "Transpose",
    )
)  # fmt: skip
_STATES = {"LSTM": (5, 6), "GRU": (5,), "RNN": (5,)}  # the inputs that are states
_FURTHEST = 16  # nodes
_PIXELS = 30.0  # a graph that divides by more, or takes more away, wants numbers up to 255


def choices_of(value: ir.Value) -> tuple[int, ...]:
    """The whole numbers that a value, as it is or passed on, is compared with."""
    found = []
    for node, index in _readers(value, _PASSED_ON):
        if node.op_type in _COMPARING:
            number = _number(node.inputs[1 - index])
            if number is not None and number == int(number):
                found.append(int(number))
    return tuple(dict.fromkeys(found))


def rows_of(value: ir.Value) -> int:
    """The rows of the smallest constant table that a value picks from, or the depth of its OneHot; 0 without one."""
    found = []
    for node, index in _readers(value, _PASSED_ON):
        if node.op_type == "Gather" and index == 1:
            table = None if node.inputs[0] is None else ir.convenience.get_const_tensor(node.inputs[0])
            axis = node.attributes.get_int("axis", 0)
            if table is not None and table.size > 1:
                found.append(dims(table)[axis])
        elif node.op_type == "OneHot" and index == 0:
            depth = _number(node.inputs[1])
            found += [] if depth is None else [int(depth)]
    return min(found, default=0)


def role_of(value: ir.Value) -> Role:
    """What a float input is, by the convolution or recurrent layer that it comes to."""
    rank, scaled = 0 if value.shape is None else len(value.shape), False
    for node, index in _readers(value, _ON_THE_WAY):
        scaled = scaled or _scales_pixels(node, index)
        if index in _STATES.get(node.op_type, ()):
            return "state"
        if node.op_type == "STFT" and index == 0:
            return "sound"
        kernel = _kernel(node) if index == 0 else ()
        if len(kernel) == 4 and rank == 4:
            return "pixels" if scaled else "picture"
        if len(kernel) == 3 and kernel[1] == 1:
            return "sound"
    return "numbers"


def _kernel(node: ir.Node) -> tuple[int, ...]:
    """The shape of a convolution's constant kernel; nothing of other nodes."""
    if node.op_type != "Conv" or node.inputs[1] is None:
        return ()
    tensor = ir.convenience.get_const_tensor(node.inputs[1])
    return () if tensor is None else dims(tensor)


def _scales_pixels(node: ir.Node, index: int) -> bool:
    """Whether a node divides by a large constant, multiplies by a small one or takes a large one away."""
    if node.op_type not in ("Div", "Mul", "Sub") or len(node.inputs) != 2:
        return False
    other = node.inputs[1 - index]
    tensor = None if other is None else ir.convenience.get_const_tensor(other)
    if tensor is None or not 0 < tensor.size <= 4 or not tensor.dtype.is_floating_point():
        return False
    number = abs(float(tensor.numpy().reshape(-1).astype(np.float64).mean()))
    return 0 < number < 1 / _PIXELS if node.op_type == "Mul" else number > _PIXELS


def _readers(value: ir.Value, passing: frozenset[str]) -> Iterator[tuple[ir.Node, int]]:
    """(node, which input) of what reads the value, the nearest first, or what ``passing`` operators make of it."""
    waiting, seen = [(value, 0)], {value}
    while waiting:
        here, steps = waiting.pop(0)
        for node, index in here.uses():
            yield node, index
            if node.op_type in passing and steps < _FURTHEST:
                new = [output for output in node.outputs if output not in seen]
                seen.update(new)
                waiting += [(output, steps + 1) for output in new]


def _number(value: ir.Value | None) -> float | None:
    """A constant's only number."""
    tensor = None if value is None else ir.convenience.get_const_tensor(value)
    if (
        tensor is None
        or tensor.size != 1
        or not (tensor.dtype.is_integer() or tensor.dtype.is_floating_point())
    ):
        return None
    return float(tensor.numpy().reshape(-1)[0])
