"""Small edits of an onnx_ir graph that the passes share."""

from __future__ import annotations

import re
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgeq.formats.errors import EdgeqError

# Keys of a quantized initializer's meta: its rounding error relative to its own size; how others had quantized the
# weight, and what was made of that.
ERROR, ORIGIN, HANDLING = "edgeq.error", "edgeq.origin", "edgeq.handling"

_TAKEN = "edgeq.names"
_COUNTER, _FRESH = "edgeq.values", re.compile(r"edgeq_(\d+)")
_OLDEST_OPSET = 13  # per-channel DequantizeLinear, and Unsqueeze with its axes as an input


def check_opset(model: ir.Model) -> None:
    """Raise EdgeqError for a graph whose opset lacks the int8 operators."""
    opset = model.opset_imports.get("", _OLDEST_OPSET)
    if opset < _OLDEST_OPSET:
        raise EdgeqError(
            f"the graph has ONNX opset {opset}: int8 needs {_OLDEST_OPSET} or later; export it again with one"
        )


def is_standard(node: ir.Node) -> bool:
    """Whether the node's operator is one of ONNX's own."""
    return node.domain in ("", "ai.onnx")


def constant(value: ir.Value | None) -> ir.TensorProtocol | None:
    """The data of a value that no caller can replace, or None."""
    if value is None or not value.is_initializer() or value.is_graph_input():
        return None
    return value.const_value


def attribute(node: ir.Node, name: str, default: Any) -> Any:
    """An attribute's value, or the default where the node has none."""
    found = node.attributes.get(name)
    return default if found is None else found.value


def dims(tensor: ir.TensorProtocol) -> tuple[int, ...]:
    """The shape of a constant as integers."""
    return tuple(tensor.shape.numpy())


def add_initializer(model: ir.Model, name: str, array: NDArray[Any] | np.generic) -> ir.Value:
    """Register a constant; an equal one that has the name already is returned as it stands."""
    data = np.asarray(array)
    existing = model.graph.initializers.get(name)
    if existing is not None and _equal(existing, data):
        return existing
    return add_lazy_initializer(model, name, data.dtype, data.shape, lambda: data)


def add_lazy_initializer(
    model: ir.Model, name: str, dtype: Any, shape: Sequence[int], load: Callable[[], NDArray[Any]]
) -> ir.Value:
    """Register a constant whose data is computed when the model is saved; a taken name gets a number."""
    name = free_name(model, name)
    ir_type = ir.DataType.from_numpy(np.dtype(dtype))
    tensor = ir.LazyTensor(lambda: ir.Tensor(load(), name=name), ir_type, ir.Shape(shape), name=name)
    value = ir.Value(name=name, type=ir.TensorType(ir_type), shape=ir.Shape(shape), const_value=tensor)
    model.graph.register_initializer(value)
    return value


def free_name(model: ir.Model, name: str) -> str:
    """The name, or the name and a number where a value of the graph or a subgraph has it already, or had it."""
    taken = _taken(model)
    found = next(n for n in (name, *(f"{name}_{i}" for i in range(1, len(taken) + 2))) if n not in taken)
    taken.add(found)
    return found


def _taken(model: ir.Model) -> set[str]:
    """All names, collected once for each model: a clone, which gets the notes of its original, is another one."""
    known = model.meta.get(_TAKEN)
    if known is None or known[0]() is not model:
        known = weakref.ref(model), set(_names(model))
        model.meta[_TAKEN] = known
    names: set[str] = known[1]
    return names


def _equal(value: ir.Value, data: NDArray[Any]) -> bool:
    tensor = value.const_value
    if tensor is None or value.is_graph_input() or dims(tensor) != data.shape:
        return False
    return tensor.dtype == ir.DataType.from_numpy(data.dtype) and tensor.tobytes() == data.tobytes()


def insert(
    model: ir.Model,
    before: ir.Node,
    op_type: str,
    inputs: Sequence[ir.Value | None],
    domain: str = "",
    **attributes: Any,
) -> ir.Value:
    """Insert a one-output node before another one, in its graph, and return its output."""
    if domain:
        model.opset_imports.setdefault(domain, 1)
    return _insert(model, before, ir.node(op_type, inputs, attributes or None, domain=domain))[0]


_QDQ_OF_16_BITS = 21  # ONNX's own QuantizeLinear has them from this opset on


def qdq_domain(model: ir.Model, dtype: type[np.generic]) -> str:
    """The domain whose QuantizeLinear knows these codes: ONNX's own, or ONNX Runtime's for 16 bits in older opsets."""
    if np.dtype(dtype).itemsize == 1 or model.opset_imports.get("", _OLDEST_OPSET) >= _QDQ_OF_16_BITS:
        return ""
    model.opset_imports.setdefault("com.microsoft", 1)
    return "com.microsoft"


def insert_many(
    model: ir.Model, before: ir.Node, op_type: str, inputs: Sequence[ir.Value | None], outputs: int
) -> Sequence[ir.Value]:
    """Insert a node with several outputs before another one."""
    return _insert(model, before, ir.node(op_type, inputs, num_outputs=outputs))


def _insert(model: ir.Model, before: ir.Node, node: ir.Node) -> Sequence[ir.Value]:
    graph = before.graph
    assert graph is not None
    graph.insert_before(before, node)
    for value in node.outputs:
        value.name = _fresh_name(model)
    return node.outputs


def _fresh_name(model: ir.Model) -> str:
    """A name that no value has: onnx_ir gives names that are new in one graph, but ONNX Runtime wants more."""
    count = model.meta.get(_COUNTER)
    if count is None:
        names = (match[1] for match in map(_FRESH.fullmatch, _names(model)) if match)
        count = max(map(int, names), default=0)
    model.meta[_COUNTER] = count + 1
    return f"edgeq_{count + 1}"


def _names(model: ir.Model) -> Iterator[str]:
    """The names of all values, of subgraphs too."""
    for graph in model.graphs():
        for values in (graph.inputs, *(node.outputs for node in graph), graph.initializers.values()):
            yield from (str(value.name) for value in values)


def replace(model: ir.Model, old: ir.Value, new: ir.Value) -> None:
    """Let every consumer of ``old`` (graph outputs too) read ``new``, then remove the node that made ``old``.

    ``new`` takes the name: ranges and graph outputs are known by it.
    """
    node = old.producer()
    assert node is not None
    assert node.graph is not None
    name, old.name = old.name, None
    new.name, new.type, new.shape = name, old.type, old.shape
    old.replace_all_uses_with(new, replace_graph_outputs=True)
    node.graph.remove(node, safe=True)


def remove_unused(model: ir.Model) -> None:
    """Drop initializers, and Transpose nodes over them, that nothing reads any more."""
    for node in reversed(list(model.graph.all_nodes())):
        if (
            node.op_type == "Transpose"
            and not node.outputs[0].uses()
            and not node.outputs[0].is_graph_output()
        ):
            assert node.graph is not None
            node.graph.remove(node, safe=True)
    for name, value in list(model.graph.initializers.items()):
        if not value.uses() and value not in model.graph.outputs:
            del model.graph.initializers[name]


def only_reader(value: ir.Value) -> ir.Node | None:
    """The node that alone reads a value, where it stands in the graph that makes it."""
    producer, uses = value.producer(), value.uses()
    if producer is None or value.is_graph_output() or len(uses) != 1:
        return None
    (reader, _) = next(iter(uses))
    return reader if reader.graph is producer.graph else None


def sole_addition(value: ir.Value) -> tuple[ir.Node, int] | None:
    """The Add that alone reads a value, and which of its inputs is added to that; None where there is none."""
    add = only_reader(value)
    if add is None or add.op_type != "Add" or not is_standard(add):
        return None
    return add, 1 if add.inputs[0] is value else 0
