"""Biases that need no addition of their own. What the graph computes stays, but for the rounding of floats.

ONNX Runtime adds the bias of an int8 MatMul of rank 3 in a node of its own, which costs half as much as a norm.

Rules
1. The bias of keys, where ``Softmax(q k^T + mask)`` alone reads them, adds one number to each row of scores, which
   Softmax does not see: it goes.
2. The bias of values, where ``Softmax(...) v`` alone reads them, is added to every mix of them, since each row of
   weights sums to 1: its product with the output layer's weight goes into that layer's bias, in float64.
3. The bias of a layer that is summed with a LayerNormalization's output, which nothing else reads, goes into the bias
   of that norm. A post-norm encoder has such norms once ``smooth`` gave the linear layers norms of their own.
4. In 1 and 2 heads are split by a Reshape and a Transpose; scores may be scaled by a constant and masked by an Add.
   Anything else on the way, a rotation say, and the bias stays.
5. A bias of rank 2 MatMuls stays with 3, since ``static_int8`` makes a Gemm of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgeq.formats.onnx.edit import (
    add_initializer,
    attribute,
    constant,
    dims,
    is_standard,
    only_reader,
    remove_unused,
    sole_addition,
)
from edgeq.formats.onnx.linear import Linear, find_linears

_HEADS_RANK = 4  # [batch, heads, tokens, width] in some order


@dataclass(frozen=True)
class _Biased:
    """A MatMul by a constant and the Add of a constant vector that alone reads it."""

    linear: Linear
    add: ir.Node
    place: int  # which input of the Add is the vector
    bias: ir.Value

    @property
    def output(self) -> ir.Value:
        return self.add.outputs[0]

    def drop(self) -> None:
        """Let what read the sum read the product."""
        self.output.replace_all_uses_with(self.linear.node.outputs[0])
        assert self.add.graph is not None
        self.add.graph.remove(self.add, safe=True)


@dataclass(frozen=True)
class _Heads:
    """Where a layer's outputs went: into this input of a MatMul, channels lying on these axes of it."""

    product: ir.Node
    place: int
    head_axis: int
    width_axis: int


def fold_attention_biases(model: ir.Model) -> int:
    """Rules 1 and 2, in a graph of floats before ranges are taken; returns how many additions went."""
    count = 0
    for biased in list(_biased(model)):
        heads = _heads(biased.output, biased.linear.outputs_width)
        if heads is not None and heads.place == 1:
            count += _fold_key(biased, heads) or _fold_value(model, biased, heads)
    remove_unused(model)
    return count


def fold_residual_biases(model: ir.Model) -> int:
    """Rule 3, once smoothing and bias correction are done; returns how many additions went."""
    count = 0
    for biased in list(_biased(model)):
        shape = biased.linear.activation.shape
        found = sole_addition(biased.output)
        if found is None or (shape is not None and len(shape) == 2):  # rule 5
            continue
        residual, place = found
        other = residual.inputs[place]
        norm = None if other is None else other.producer()
        if (
            norm is None
            or not _is(norm, "LayerNormalization")
            or only_reader(norm.outputs[0]) is not residual
        ):
            continue
        count += _into_norm(model, norm, biased)
    remove_unused(model)
    return count


def _biased(model: ir.Model) -> Iterator[_Biased]:
    for linear in find_linears(model):
        found = sole_addition(linear.node.outputs[0])
        if not _is(linear.node, "MatMul") or found is None:
            continue
        add, place = found
        bias = add.inputs[place]
        tensor = constant(bias)
        if (
            bias is None
            or tensor is None
            or tensor.dtype != ir.DataType.FLOAT
            or add.outputs[0].is_graph_output()
        ):
            continue
        if tensor.size == linear.outputs_width == dims(tensor)[-1]:
            yield _Biased(linear, add, place, bias)


def _is(node: ir.Node, op_type: str) -> bool:
    return is_standard(node) and node.op_type == op_type


def _heads(value: ir.Value, width: int) -> _Heads | None:
    """Follow ``[..., width]`` through Reshape and Transposes, which split it into heads, to the MatMul behind."""
    reshape = only_reader(value)
    if reshape is None or not _is(reshape, "Reshape") or not _splits(reshape, width):
        return None
    value, axes = reshape.outputs[0], [2, 3]  # where heads and their channels are
    while (reader := only_reader(value)) is not None and _is(reader, "Transpose"):
        perm = list(attribute(reader, "perm", range(_HEADS_RANK - 1, -1, -1)))
        axes = [perm.index(axis) for axis in axes]
        value = reader.outputs[0]
    if reader is None or not _is(reader, "MatMul"):
        return None
    return _Heads(reader, 0 if reader.inputs[0] is value else 1, axes[0], axes[1])


def _splits(reshape: ir.Node, width: int) -> bool:
    """Whether the result has four axes, the last two of which are the channels."""
    target, known = constant(reshape.inputs[1]), reshape.outputs[0].shape
    shape = tuple(known) if target is None and known is not None else ()
    if target is not None:
        shape = tuple(target.numpy().tolist())
    heads, each = shape[2:] if len(shape) == _HEADS_RANK else (None, None)
    return isinstance(heads, int) and isinstance(each, int) and heads > 0 and heads * each == width


def _fold_key(biased: _Biased, heads: _Heads) -> bool:
    """Rule 1."""
    if (heads.head_axis, heads.width_axis) != (1, 2):
        return False
    scores = heads.product.outputs[0]
    masked = False
    while (reader := only_reader(scores)) is not None and not _is(reader, "Softmax"):
        other = reader.inputs[1 if reader.inputs[0] is scores else 0] if len(reader.inputs) == 2 else None
        scaled = _is(reader, "Mul") or (_is(reader, "Div") and reader.inputs[0] is scores)
        if not (scaled and _is_number(other)) and (masked or not _is(reader, "Add")):
            return False
        masked = masked or _is(reader, "Add")
        scores = reader.outputs[0]
    if reader is None or not _is_over_keys(reader):
        return False
    biased.drop()
    return True


def _fold_value(model: ir.Model, biased: _Biased, heads: _Heads) -> bool:
    """Rule 2."""
    weights = heads.product.inputs[0]
    softmax = None if weights is None else weights.producer()
    if (heads.head_axis, heads.width_axis) != (1, 3) or softmax is None or not _is_over_keys(softmax):
        return False
    after = _output_layer(model, heads.product, biased.linear.outputs_width)
    bias = constant(biased.bias)
    if after is None or bias is None:
        return False
    old = constant(after.bias)
    assert old is not None
    mixed = bias.numpy().reshape(-1).astype(np.float64) @ after.linear.matrix().astype(np.float64)
    new = (old.numpy() + mixed.reshape(dims(old))).astype(np.float32)
    after.add.replace_input_with(after.place, add_initializer(model, f"{after.bias.name}_mixed", new))
    biased.drop()
    return True


def _output_layer(model: ir.Model, mix: ir.Node, width: int) -> _Biased | None:
    """The layer that alone reads the heads, joined again: Transpose, Reshape, MatMul and Add."""
    transpose = only_reader(mix.outputs[0])
    if (
        transpose is None
        or not _is(transpose, "Transpose")
        or list(attribute(transpose, "perm", ())) != [0, 2, 1, 3]
    ):
        return None
    reshape = only_reader(transpose.outputs[0])
    if reshape is None or not _is(reshape, "Reshape"):
        return None
    layer = only_reader(reshape.outputs[0])
    return next(
        (one for one in _biased(model) if one.linear.node is layer and one.linear.inputs_width == width), None
    )


def _is_over_keys(node: ir.Node) -> bool:
    """Whether it is a Softmax along the last axis of scores of heads."""
    axis = attribute(node, "axis", -1)
    return _is(node, "Softmax") and axis in (-1, _HEADS_RANK - 1)


def _is_number(value: ir.Value | None) -> bool:
    tensor = constant(value)
    return tensor is not None and tensor.size == 1


def _into_norm(model: ir.Model, norm: ir.Node, biased: _Biased) -> bool:
    """Rule 3."""
    old = constant(norm.inputs[2]) if len(norm.inputs) > 2 else None
    bias = constant(biased.bias)
    if old is None or bias is None or old.size != bias.size:
        return False
    total = old.numpy().reshape(-1) + bias.numpy().reshape(-1)
    name = f"{norm.outputs[0].name}_bias_and_{biased.bias.name}"
    norm.replace_input_with(2, add_initializer(model, name, total))
    biased.drop()
    return True
