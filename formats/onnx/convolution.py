"""Finding the convolutions of a graph whose kernel is a constant, and reading their weights as matrices."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgeq.formats.onnx.edit import attribute, constant, dims, is_standard

_OPERATORS = ("Conv", "ConvTranspose")


@dataclass(frozen=True)
class Convolution:
    """A Conv with its kernel ``[M, C / group, *kernel]``, or a ConvTranspose with ``[C, M / group, *kernel]``."""

    node: ir.Node
    weight: ir.Value  # the initializer

    @property
    def transposed(self) -> bool:
        return self.node.op_type == "ConvTranspose"

    @property
    def groups(self) -> int:
        return int(attribute(self.node, "group", 1))

    @property
    def channels(self) -> int:
        """M, the number of output channels."""
        shape = dims(self.tensor)
        return shape[1] * self.groups if self.transposed else shape[0]

    @property
    def depthwise(self) -> bool:
        """Whether every output channel reads one input channel, and every input channel is read once."""
        shape = dims(self.tensor)
        return self.groups > 1 and shape[1] == 1 and shape[0] == self.groups

    @property
    def tensor(self) -> ir.TensorProtocol:
        assert self.weight.const_value is not None
        return self.weight.const_value

    @property
    def bias(self) -> ir.Value | None:
        return self.node.inputs[2] if len(self.node.inputs) > 2 else None

    def array(self) -> NDArray[np.float32]:
        """The kernel as it is stored; reads it, so keep it no longer than needed."""
        return self.tensor.numpy()

    def per_channel(self, factors: NDArray[np.float32]) -> NDArray[np.float32]:
        """Factors ``[M]`` shaped so that they multiply the stored kernel."""
        rank = len(dims(self.tensor))
        if not self.transposed:
            return factors.reshape(-1, *[1] * (rank - 1))
        shape = dims(self.tensor)
        grouped = factors.reshape(self.groups, 1, shape[1])  # groups along C, then channels of the group
        spread = np.broadcast_to(grouped, (self.groups, shape[0] // self.groups, shape[1]))
        return spread.reshape(shape[0], shape[1], *[1] * (rank - 2))


def find_convolutions(model: ir.Model) -> Iterator[Convolution]:
    """The convolutions of the graph and its subgraphs with a float32 constant kernel and a constant bias or none."""
    for node in model.graph.all_nodes():
        if not is_standard(node) or node.op_type not in _OPERATORS or node.inputs[0] is None:
            continue
        weight = node.inputs[1]
        tensor = constant(weight)
        if weight is None or tensor is None or tensor.dtype != ir.DataType.FLOAT:
            continue
        if len(dims(tensor)) < 3 or not all(dims(tensor)):
            continue
        bias = node.inputs[2] if len(node.inputs) > 2 else None
        if bias is None or constant(bias) is not None:
            yield Convolution(node, weight)
