"""A thin layer over onnx_ir for emitting a graph node by node."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from onnx_ir import tape

# Opset 17 has LayerNormalization and is read by every ONNX Runtime since 1.12; IR 8 belongs to it.
OPSET, IR_VERSION = 17, 8


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

    def split(self, x: ir.Value, widths: Sequence[int], axis: int) -> Sequence[ir.Value]:
        """Split into parts of these widths along ``axis``."""
        sizes = self.constant(list(widths))
        return self.tape.op_multi_out("Split", [x, sizes], {"axis": axis}, num_outputs=len(widths))

    def top_k(self, x: ir.Value, k: int) -> tuple[ir.Value, ir.Value]:
        """The ``k`` largest values along the last axis, and where they are."""
        values, places = self.tape.op_multi_out("TopK", [x, self.constant([k])], {"axis": -1}, num_outputs=2)
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
        """The finished model."""
        opsets = {"": OPSET} | {node.domain: 1 for node in self.tape.nodes if node.domain}
        graph = ir.Graph(
            self.inputs,
            self.outputs,
            nodes=self.tape.nodes,
            initializers=list(self._initializers.values()),
            opset_imports=opsets,
            name=self.name,
        )
        return ir.Model(
            graph, ir_version=IR_VERSION, producer_name="edgeq", producer_version=producer_version
        )
