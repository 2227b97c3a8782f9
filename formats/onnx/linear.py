"""Finding the linear layers of a graph: MatMul and Gemm nodes whose weight is a constant."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgeq.formats.onnx.edit import attribute, constant, dims, is_standard


@dataclass(frozen=True)
class Linear:
    """A product of an activation with a constant matrix ``[K, N]`` (or its stored transpose)."""

    node: ir.Node
    weight: ir.Value  # the initializer
    transposed: bool  # the initializer is stored [N, K]

    @property
    def activation(self) -> ir.Value:
        """What the node reads now: rewriting the node before it changes that."""
        activation = self.node.inputs[0]
        assert activation is not None
        return activation

    @property
    def name(self) -> str:
        """The node's own name, or its weight's where it has none."""
        return self.node.name or self.weight.name or "linear"

    @property
    def inputs_width(self) -> int:
        """K, without reading the weight."""
        assert self.weight.const_value is not None
        return dims(self.weight.const_value)[1 if self.transposed else 0]

    @property
    def outputs_width(self) -> int:
        """N, without reading the weight."""
        assert self.weight.const_value is not None
        return dims(self.weight.const_value)[0 if self.transposed else 1]

    def largest_weights(self) -> NDArray[np.float32]:
        """The largest magnitude of each output channel, ``[N]``; reads the weight."""
        return np.abs(self.matrix()).max(axis=0, initial=0)

    def matrix(self) -> NDArray[np.float32]:
        """The weight as float32 ``[K, N]``; reads it, so keep it no longer than needed."""
        assert self.weight.const_value is not None
        array = self.weight.const_value.numpy()
        return array.T if self.transposed else array


def find_linears(model: ir.Model) -> Iterator[Linear]:
    """The linear layers of the graph and its subgraphs, in order.

    A MatMul counts with a float32 rank-2 initializer as its second input, directly or through one Transpose;
    a Gemm with alpha = beta = 1 and transA = 0 likewise. One without numbers does not.
    """
    for node in model.graph.all_nodes():
        if not is_standard(node) or node.op_type not in ("MatMul", "Gemm"):
            continue
        second = node.inputs[1]
        if node.inputs[0] is None or second is None:
            continue
        transposed = False
        if node.op_type == "Gemm":
            if attribute(node, "alpha", 1.0) != 1.0 or attribute(node, "beta", 1.0) != 1.0:
                continue
            if attribute(node, "transA", 0):
                continue
            transposed = bool(attribute(node, "transB", 0))
        producer = second.producer()
        if producer is not None and producer.op_type == "Transpose" and producer.inputs[0] is not None:
            perm = producer.attributes.get("perm")
            if perm is None or list(perm.as_ints()) == [1, 0]:
                second, transposed = producer.inputs[0], not transposed
        tensor = constant(second)
        if tensor is None or tensor.dtype != ir.DataType.FLOAT or tensor.shape.rank() != 2:
            continue
        if all(dims(tensor)):
            yield Linear(node, second, transposed)
