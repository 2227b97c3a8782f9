"""Small edits of an onnx_ir graph that the passes share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray


def dims(tensor: ir.TensorProtocol) -> tuple[int, ...]:
    """The shape of a constant as integers."""
    return tuple(tensor.shape.numpy())


def add_initializer(model: ir.Model, name: str, array: NDArray[Any] | np.generic) -> ir.Value:
    """Register a constant; a name that is there already is returned as it stands."""
    data = np.asarray(array)
    return add_lazy_initializer(model, name, data.dtype, data.shape, lambda: data)


def add_lazy_initializer(
    model: ir.Model, name: str, dtype: Any, shape: Sequence[int], load: Callable[[], NDArray[Any]]
) -> ir.Value:
    """Register a constant whose data is computed when the model is saved."""
    existing = model.graph.initializers.get(name)
    if existing is not None:
        return existing
    ir_type = ir.DataType.from_numpy(np.dtype(dtype))
    tensor = ir.LazyTensor(lambda: ir.Tensor(load(), name=name), ir_type, ir.Shape(shape), name=name)
    value = ir.Value(name=name, type=ir.TensorType(ir_type), shape=ir.Shape(shape), const_value=tensor)
    model.graph.register_initializer(value)
    return value


def insert(
    model: ir.Model, before: ir.Node, op_type: str, inputs: Sequence[ir.Value | None], **attributes: Any
) -> ir.Value:
    """Insert a one-output node before another one and return its output."""
    node = ir.node(op_type, inputs, attributes or None)
    model.graph.insert_before(before, node)
    return node.outputs[0]


def insert_many(
    model: ir.Model, before: ir.Node, op_type: str, inputs: Sequence[ir.Value | None], outputs: int
) -> Sequence[ir.Value]:
    """Insert a node with several outputs before another one."""
    node = ir.node(op_type, inputs, num_outputs=outputs)
    model.graph.insert_before(before, node)
    return node.outputs


def replace(model: ir.Model, old: ir.Value, new: ir.Value) -> None:
    """Let every consumer of ``old`` (graph outputs too) read ``new``, then remove the node that made ``old``."""
    node = old.producer()
    assert node is not None
    if old in model.graph.outputs:
        new.name, old.name = old.name, None
        new.type, new.shape = old.type, old.shape
        model.graph.outputs[model.graph.outputs.index(old)] = new
    ir.convenience.replace_all_uses_with(old, new)
    model.graph.remove(node, safe=True)


def remove_unused(model: ir.Model) -> None:
    """Drop initializers, and Transpose nodes over them, that nothing reads any more."""
    for node in reversed(list(model.graph)):
        if (
            node.op_type == "Transpose"
            and not node.outputs[0].uses()
            and node.outputs[0] not in model.graph.outputs
        ):
            model.graph.remove(node, safe=True)
    for name, value in list(model.graph.initializers.items()):
        if not value.uses() and value not in model.graph.outputs:
            del model.graph.initializers[name]
