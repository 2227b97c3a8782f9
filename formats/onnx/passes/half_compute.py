"""The graph computed in float16: half the weights, half the activations, Casts at its ends.

Rules
1. A node of the main graph is computed in float16 where ONNX says that all its floats may be float16, unless ``keep``
   names it. Its float32 weights are stored so.
2. Nodes at risk stay in float32: what squares, adds up many numbers or takes exponents (``AT_RISK``), and what holds a
   subgraph. So do the epsilon and the root behind a mean of squares (``_FOLLOWERS``): in float16 the one may be 0, and
   what the other reads infinite.
3. Weights beyond 65504: such as stand for infinity (1e9 and more, as masks have them) become 65504 with their sign; a
   node that reads another one stays in float32.
4. Casts stand where the two kinds of nodes meet, one for each value; inputs and outputs of the graph stay float32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx import defs

from edgeq.formats.errors import EdgeqError
from edgeq.formats.onnx.edit import add_lazy_initializer, constant, dims, free_name, is_standard

AT_RISK = frozenset(
    (
        "ReduceSum", "ReduceMean", "ReduceSumSquare", "ReduceL1", "ReduceL2", "ReduceProd", "ReduceLogSum",
        "ReduceLogSumExp", "Pow", "Exp", "Log", "Softmax", "LogSoftmax", "LayerNormalization", "RMSNormalization",
        "InstanceNormalization", "GroupNormalization", "BatchNormalization", "LpNormalization", "CumSum", "Range",
        "Resize", "Cast",
    )
)  # fmt: skip
_BOUNDED = frozenset(("Softmax", "LayerNormalization", "RMSNormalization", "Resize", "Cast"))
_FOLLOWERS = frozenset(("Add", "Sub", "Sqrt", "Reciprocal", "Max", "Min", "Clip", "Neg"))
_LARGEST, _INFINITE = 65504.0, 1e9
_HALF = "tensor(float16)"


def half_compute(model: ir.Model, keep: Callable[[str], bool] = lambda name: False) -> tuple[int, list[str]]:
    """(how many nodes are computed in float16, which of those with floats are not).

    Raises EdgeqError where the type of a value is not known.
    """
    floats = _float_values(model)
    halves: list[ir.Node] = []
    kept: list[str] = []
    wide: set[ir.Value] = set()  # what may be too large or too small for float16
    for node in model.graph:
        if not any(value in floats for value in (*node.inputs, *node.outputs) if value is not None):
            continue
        changing = [value for value in node.inputs if value in floats and constant(value) is None]
        follows = node.op_type in _FOLLOWERS and bool(changing) and wide.issuperset(changing)
        if follows or (node.op_type in AT_RISK and node.op_type not in _BOUNDED):
            wide.update(node.outputs)
        if not follows and _fits(model, node, floats) and not keep(str(node.name)):
            halves.append(node)
        else:
            kept.append(str(node.name or node.outputs[0].name))
    _Rewriting(model, floats, set(halves)).run()
    return len(halves), kept


def _float_values(model: ir.Model) -> set[ir.Value]:
    """The float32 values of the main graph."""
    values = [*model.graph.inputs, *model.graph.initializers.values()]
    values += [value for node in model.graph for value in node.outputs]
    for value in values:
        if value.dtype is None and value.const_value is not None:
            value.dtype = value.const_value.dtype
        if value.dtype is None and value.uses():
            raise EdgeqError(
                f"the type of value {value.name} is not known; export the graph again with its shapes inferred"
            )
    return {value for value in values if value.dtype == ir.DataType.FLOAT}


def _fits(model: ir.Model, node: ir.Node, floats: set[ir.Value]) -> bool:
    """Rules 1 to 3."""
    if node.op_type in AT_RISK or not is_standard(node):
        return False
    if any(a.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS) for a in node.attributes.values()):
        return False
    if any(a.type == ir.AttributeType.TENSOR for a in node.attributes.values()):
        return False  # makes a float32 itself: Constant, ConstantOfShape
    try:
        schema = defs.get_schema(node.op_type, model.graph.opset_imports[""], "")
    except defs.SchemaError:
        return False
    allowed = {one.type_param_str: one.allowed_type_strs for one in schema.type_constraints}
    formal = [*_spread(schema.inputs, node.inputs), *_spread(schema.outputs, node.outputs)]
    return all(
        _HALF in allowed.get(type_name, ()) and _holds(value)
        for type_name, value in formal
        if value is not None and value in floats
    )


def _spread(
    formal: Sequence[defs.OpSchema.FormalParameter], values: Sequence[ir.Value | None]
) -> Iterator[tuple[str, ir.Value | None]]:
    """Each value with the name of its type; the last parameter may stand for many."""
    for index, value in enumerate(values):
        yield formal[min(index, len(formal) - 1)].type_str, value


def _holds(value: ir.Value) -> bool:
    """Whether a constant's numbers are such as float16 has, or stand for infinity; others are left to the gate."""
    tensor = constant(value)
    if tensor is None:
        return True
    sizes = np.abs(tensor.numpy())
    return not bool(((sizes > _LARGEST) & (sizes < _INFINITE)).any())


class _Rewriting:
    """Rule 4: ``other`` holds the float32 copy of what is float16, and the float16 copy of what is float32."""

    def __init__(self, model: ir.Model, floats: set[ir.Value], halves: set[ir.Node]) -> None:
        self.model, self.floats, self.halves = model, floats, halves
        self.other: dict[ir.Value, ir.Value] = {}

    def run(self) -> None:
        nodes = list(self.model.graph)
        uses = {value: list(value.uses()) for value in self.floats}
        for node in nodes:
            if node in self.halves:
                for value in node.outputs:
                    if value in self.floats:
                        value.dtype = ir.DataType.FLOAT16
        for value in sorted(self.floats, key=lambda one: str(one.name)):
            is_half = value.producer() in self.halves
            for reader, index in uses[value]:
                if (reader in self.halves) != is_half:
                    reader.replace_input_with(index, self._copy(value, is_half))
            if is_half and value.is_graph_output():
                self._give_out(value)
        for name, value in list(self.model.graph.initializers.items()):
            if value in self.other and not value.uses() and not value.is_graph_output():
                del self.model.graph.initializers[name]

    def _copy(self, value: ir.Value, is_half: bool) -> ir.Value:
        if value not in self.other:
            tensor = constant(value)
            if tensor is not None:
                self.other[value] = self._stored(value, tensor)
            else:
                to = ir.DataType.FLOAT if is_half else ir.DataType.FLOAT16
                self.other[value] = self._cast(value, to)
        return self.other[value]

    def _stored(self, value: ir.Value, tensor: ir.TensorProtocol) -> ir.Value:
        def load() -> NDArray[np.float16]:
            return np.clip(tensor.numpy(), -_LARGEST, _LARGEST).astype(np.float16)

        return add_lazy_initializer(self.model, f"{value.name}_float16", np.float16, dims(tensor), load)

    def _cast(self, value: ir.Value, to: ir.DataType) -> ir.Value:
        name = free_name(self.model, f"{value.name}_{to.name.lower()}")
        node = ir.node("Cast", [value], {"to": to}, name=name)
        out, producer, graph = node.outputs[0], value.producer(), self.model.graph
        out.name, out.type, out.shape = name, ir.TensorType(to), value.shape
        if producer is None:
            graph.insert_before(graph[0], node)
        else:
            graph.insert_after(producer, node)
        return out

    def _give_out(self, value: ir.Value) -> None:
        """A float32 copy takes the place and the name of an output."""
        copy = self._copy(value, is_half=True)
        name = value.name
        value.name = free_name(self.model, f"{name}_half")
        copy.name = name
        for index, output in enumerate(self.model.graph.outputs):
            if output is value:
                self.model.graph.outputs[index] = copy
