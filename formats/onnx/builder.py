"""A thin layer over onnx_ir for emitting a graph node by node."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from onnx_ir import tape

# Opset 17 has LayerNormalization and is read by every ONNX Runtime since 1.12. A graph asks for a later one only where
# it has one of these operators.
OPSET = 17
_IR_VERSIONS = ((25, 13), (24, 12), (23, 11), (21, 10), (19, 9), (0, 8))
SINCE = {"Gelu": 20, "RMSNormalization": 23, "RotaryEmbedding": 23, "Attention": 23}


class GraphBuilder:
    """Collects nodes, inputs and initializers; ``model()`` makes the onnx_ir model of them."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.tape = tape.Tape()
        self.inputs: list[ir.Value] = []
        self.outputs: list[ir.Value] = []
        self._initializers: dict[str, ir.Value] = {}

    def input(self, name: str, dtype: ir.DataType, shape: Sequence[int | str]) -> ir.Value:
        """Declare a graph input; strings in ``shape`` are symbolic dimensions."""
        value = ir.Value(name=name, type=ir.TensorType(dtype), shape=ir.Shape(shape))
        self.inputs.append(value)
        return value

    def output(self, value: ir.Value, name: str, dtype: ir.DataType, shape: Sequence[int | str]) -> None:
        """Declare ``value`` as the graph output ``name``."""
        if value.producer() is None or any(value is output for output in self.outputs):
            value = self.op("Identity", value)  # an input, a weight or an output keeps its own name
        value.name, value.type, value.shape = name, ir.TensorType(dtype), ir.Shape(shape)
        self.outputs.append(value)

    def op(
        self, op_type: str, *inputs: ir.Value | None, domain: str = "", name: str | None = None, **attrs: Any
    ) -> ir.Value:
        """Emit a node with one output.

        Inputs left out at the end are dropped, not written as "": ONNX Runtime 1.31 crashes on a norm whose bias is "".
        """
        while inputs and inputs[-1] is None:
            inputs = inputs[:-1]
        return self.tape.op(op_type, inputs, attrs or None, domain=domain, name=name)

    def op_many(
        self,
        op_type: str,
        *inputs: ir.Value | None,
        outputs: int,
        domain: str = "",
        name: str | None = None,
        **attrs: Any,
    ) -> Sequence[ir.Value]:
        """Emit a node with several outputs."""
        return self.tape.op_multi_out(
            op_type, inputs, attrs or None, num_outputs=outputs, domain=domain, name=name
        )

    def split(self, x: ir.Value, widths: Sequence[int], axis: int) -> Sequence[ir.Value]:
        """Split into parts of these widths along ``axis``."""
        return self.op_many("Split", x, self.constant(list(widths)), outputs=len(widths), axis=axis)

    def top_k(self, x: ir.Value, k: int) -> tuple[ir.Value, ir.Value]:
        """The ``k`` largest values along the last axis, and where they are."""
        values, places = self.op_many("TopK", x, self.constant([k]), outputs=2, axis=-1)
        return values, places

    def constant(self, array: Any, dtype: Any = np.int64) -> ir.Value:
        """A small initializer, shared by equal values."""
        data = np.asarray(array, dtype)
        content = data.tobytes().hex()
        if len(content) > 64:
            content = hashlib.sha256(data.tobytes()).hexdigest()
        key = f"const_{data.dtype}_{'x'.join(map(str, data.shape))}_{content}"
        return self.weight(key, data.dtype, data.shape, lambda: data)

    def weight(
        self, name: str, dtype: Any, shape: Sequence[int], load: Callable[[], np.ndarray[Any, Any]]
    ) -> ir.Value:
        """An initializer whose data ``load`` gives when the model is saved; one per name."""
        if name not in self._initializers:
            ir_type = ir.DataType.from_numpy(np.dtype(dtype))
            lazy = ir.LazyTensor(lambda: ir.Tensor(load(), name=name), ir_type, ir.Shape(shape), name=name)
            value = ir.Value(name=name, type=ir.TensorType(ir_type), shape=ir.Shape(shape), const_value=lazy)
            self._initializers[name] = value
        return self._initializers[name]

    def model(self, producer_version: str) -> ir.Model:
        """The finished model: the nodes that the outputs need, and what those read."""
        nodes = _needed(list(self.tape.nodes), self.outputs)
        read = {value for node in nodes for value in node.inputs} | set(self.outputs)
        own = [node.op_type for node in nodes if node.domain == ""]
        opset = max([OPSET, *(SINCE.get(op_type, OPSET) for op_type in own)])
        graph = ir.Graph(
            self.inputs,
            self.outputs,
            nodes=nodes,
            initializers=[value for value in self._initializers.values() if value in read],
            opset_imports={"": opset} | {node.domain: 1 for node in nodes if node.domain},
            name=self.name,
        )
        return ir.Model(
            graph, ir_version=ir_version_of(opset), producer_name="edgeq", producer_version=producer_version
        )


def ir_version_of(opset: int) -> int:
    """The oldest IR version that may hold an opset (upstream: the table in ONNX's docs/Versioning.md)."""
    return next(version for since, version in _IR_VERSIONS if opset >= since)


def _needed(nodes: Sequence[ir.Node], outputs: Sequence[ir.Value]) -> list[ir.Node]:
    """Those of the nodes, in order, that the outputs depend on; the others let go of what they read."""
    needed, kept = set(outputs), []
    for node in reversed(nodes):
        if needed.isdisjoint(node.outputs):
            for index in range(len(node.inputs)):
                node.replace_input_with(index, None)
            continue
        kept.append(node)
        needed.update(value for value in node.inputs if value is not None)
    return kept[::-1]
