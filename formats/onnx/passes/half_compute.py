"""The graph computed in float16: half the weights, half the activations, Casts at its ends.

Rules
1. A node of the main graph is computed in float16 where ONNX says that all its floats may be float16, unless ``keep``
   names it. Its float32 weights are stored so, and a float32 constant that it makes.
2. Nodes at risk stay in float32; which those are is the ``Care``. In a graph of anybody's (``FOREIGN``) it is what
   squares, adds up many numbers or takes exponents, what others than ONNX define, and the epsilon and the root behind
   a mean of squares: in float16 the one may be 0, and what the other reads infinite. In a graph that edgeq built
   (``OWN``) the norms and softmaxes are operators that compute in float32 inside, ONNX Runtime's own are known to
   have float16, and angles stay, with what they are computed from: positions are exact in float16 up to 2048 only.
   So does what holds a subgraph.
3. Weights beyond 65504: such as stand for infinity (1e9 and more, as masks have them) become 60000 with their sign,
   which is finite with something added; a node that reads another one stays in float32.
4. Casts stand where the two kinds of nodes meet, one for each value. Inputs and outputs of the graph stay float32, but
   for those whose names begin as the ``Care`` says.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgeq.formats.errors import EdgeqError
from edgeq.formats.onnx.edit import add_lazy_initializer, constant, dims, free_name
from edgeq.formats.onnx.rows import made_of
from edgeq.formats.onnx.types import follow_types, formal_types, schema_of

FLOAT, HALF = ir.DataType.FLOAT, ir.DataType.FLOAT16
_BOUNDED = frozenset(("Softmax", "LayerNormalization", "RMSNormalization", "Resize", "Cast"))
_UNBOUNDED = frozenset(
    (
        "ReduceSum", "ReduceMean", "ReduceSumSquare", "ReduceL1", "ReduceL2", "ReduceProd", "ReduceLogSum",
        "ReduceLogSumExp", "Pow", "Exp", "Log", "LogSoftmax", "InstanceNormalization", "GroupNormalization",
        "BatchNormalization", "LpNormalization", "CumSum", "Range",
    )
)  # fmt: skip
_FOLLOWERS = frozenset(("Add", "Sub", "Sqrt", "Reciprocal", "Max", "Min", "Clip", "Neg"))
_MAKERS = ("Constant", "ConstantOfShape")
_LARGEST, _INFINITE, _FINITE = 65504.0, 1e9, 60000.0


@dataclass(frozen=True)
class Care:
    """What stays in float32.

    ``at_risk`` are operators; of those ``unbounded`` the ``_FOLLOWERS`` stay, too, and of those ``exact`` all that they
    are computed from. ``others``: operators without a schema have float16. ``edges``: what the names of inputs and
    outputs begin with that are float16.
    """

    at_risk: frozenset[str]
    unbounded: frozenset[str] = frozenset()
    exact: frozenset[str] = frozenset()
    others: bool = False
    edges: tuple[str, ...] = ()


FOREIGN = Care(_BOUNDED | _UNBOUNDED, _UNBOUNDED)
# ScatterND adds up what experts answer; ONNX Runtime's CPU adds no float16 there.
OWN = Care(
    frozenset(("ScatterND",)),
    exact=frozenset(("Cos", "Sin")),
    others=True,
    edges=("past_key_values", "present"),
)


@dataclass(frozen=True)
class Halved:
    """How many nodes are computed in float16, how many weights are stored so, which nodes with floats are neither."""

    nodes: int
    weights: int
    kept: list[str]


def half_compute(
    model: ir.Model, care: Care = FOREIGN, keep: Callable[[str], bool] = lambda name: False
) -> Halved:
    """Rewrite the graph. Raises EdgeqError where the type of a value is not known."""
    floats = _float_values(model)
    exact = _before(model, care.exact, floats)
    halves: list[ir.Node] = []
    kept: list[str] = []
    wide: set[ir.Value] = set()  # what may be too large or too small for float16
    for node in model.graph:
        if not any(value in floats for value in (*node.inputs, *node.outputs) if value is not None):
            continue
        changing = [value for value in node.inputs if value in floats and constant(value) is None]
        follows = node.op_type in _FOLLOWERS and bool(changing) and wide.issuperset(changing)
        if follows or node.op_type in care.unbounded:
            wide.update(node.outputs)
        stays = follows or node in exact or node.op_type in care.at_risk or keep(str(node.name))
        if not stays and _fits(model, node, floats, care):
            halves.append(node)
        else:
            kept.append(str(node.name or node.outputs[0].name))
    weights = _Rewriting(model, floats, set(halves), care.edges).run()
    return Halved(len(halves), weights, kept)


def _float_values(model: ir.Model) -> set[ir.Value]:
    """The float32 values of the main graph; all types are noted."""
    types = follow_types(model)
    values = [*model.graph.inputs, *model.graph.initializers.values()]
    values += [value for node in model.graph for value in node.outputs]
    for value in values:
        if value.dtype is None and value.const_value is not None:
            value.dtype = value.const_value.dtype
        if value.dtype is None and value in types:
            value.dtype = types[value]
        if value.dtype is None and value.uses():
            raise EdgeqError(
                f"the type of value {value.name} is not known; export the graph again with its shapes inferred"
            )
    return {value for value in values if value.dtype == FLOAT}


def _before(model: ir.Model, operators: frozenset[str], floats: set[ir.Value]) -> set[ir.Node]:
    """Nodes of these operators, and the nodes that make the floats they are computed from."""
    found: set[ir.Node] = set()
    waiting = [node for node in model.graph if node.op_type in operators]
    while waiting:
        node = waiting.pop()
        if node not in found:
            found.add(node)
            makers = (value.producer() for value in node.inputs if value is not None and value in floats)
            waiting += [maker for maker in makers if maker is not None]
    return found


def _fits(model: ir.Model, node: ir.Node, floats: set[ir.Value], care: Care) -> bool:
    """Rules 1 to 3, but for the nodes at risk."""
    kinds = {attribute.type for attribute in node.attributes.values()}
    if kinds & {ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS}:
        return False
    if node.op_type in _MAKERS and not _can_make(node):
        return False
    used = [value for value in (*node.inputs, *node.outputs) if value is not None and value in floats]
    if not all(map(_holds, map(constant, used))):
        return False
    schema = schema_of(model, node)
    if schema is None:
        return care.others
    allowed = {one.type_param_str: one.allowed_type_strs for one in schema.type_constraints}
    formal = [*formal_types(schema.inputs, node.inputs), *formal_types(schema.outputs, node.outputs)]
    return all("tensor(float16)" in allowed.get(name, ()) for name, value in formal if value in floats)


def _can_make(node: ir.Node) -> bool:
    """Whether a node that makes a constant says it as a tensor, which float16 has."""
    value = node.attributes.get("value")
    return value is not None and _holds(value.as_tensor())


def _holds(tensor: ir.TensorProtocol | None) -> bool:
    """Whether a constant's numbers are such as float16 has, or stand for infinity; others are left to the gate."""
    if tensor is None:
        return True
    sizes = made_of(tensor, np.abs)
    return not bool(((sizes > _LARGEST) & (sizes < _INFINITE)).any())


def _half(numbers: NDArray[np.float32]) -> NDArray[np.float16]:
    """Rule 3."""
    finite = np.where(np.abs(numbers) > _LARGEST, np.copysign(np.float32(_FINITE), numbers), numbers)
    return finite.astype(np.float16)


class _Rewriting:
    """Rule 4: ``other`` holds the float32 copy of what is float16, and the float16 copy of what is float32."""

    def __init__(
        self, model: ir.Model, floats: set[ir.Value], halves: set[ir.Node], edges: tuple[str, ...]
    ) -> None:
        self.model, self.floats, self.halves, self.edges = model, floats, halves, edges
        self.other: dict[ir.Value, ir.Value] = {}
        self.weights = 0

    def run(self) -> int:
        """How many weights are stored in float16."""
        uses = {value: list(value.uses()) for value in self.floats}
        for node in self.halves:
            _make_halves(node)
        for value in sorted(self.floats, key=lambda one: str(one.name)):
            is_half = self._becomes_half(value)
            if is_half:
                value.dtype = HALF
            for reader, index in uses[value]:
                if (reader in self.halves) != is_half:
                    reader.replace_input_with(index, self._copy(value, is_half))
            if value.is_graph_output() and is_half != str(value.name).startswith(self.edges or "\0"):
                self._give_out(value, is_half)
        return self.weights

    def _becomes_half(self, value: ir.Value) -> bool:
        """Whether the value itself is float16 from now on; a weight is, where nothing reads it in float32."""
        tensor = constant(value)
        if tensor is not None and not value.is_graph_output():
            is_half = bool(value.uses()) and all(node in self.halves for node, _ in value.uses())
            if is_half:
                name = str(value.name)
                value.const_value = ir.LazyTensor(
                    lambda: ir.Tensor(made_of(tensor, _half), name=name),
                    HALF,
                    ir.Shape(dims(tensor)),
                    name=name,
                )
                self.weights += 1
            return is_half
        if value.is_graph_input():
            return bool(self.edges) and str(value.name).startswith(self.edges)
        return value.producer() in self.halves

    def _copy(self, value: ir.Value, is_half: bool) -> ir.Value:
        if value not in self.other:
            tensor = constant(value)
            self.other[value] = (
                self._cast(value, FLOAT if is_half else HALF)
                if tensor is None
                else self._stored(value, tensor)
            )
        return self.other[value]

    def _stored(self, value: ir.Value, tensor: ir.TensorProtocol) -> ir.Value:
        """A weight that nodes of both kinds read is stored twice."""
        self.weights += 1
        name = f"{value.name}_float16"
        return add_lazy_initializer(
            self.model, name, np.float16, dims(tensor), lambda: made_of(tensor, _half)
        )

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

    def _give_out(self, value: ir.Value, is_half: bool) -> None:
        """A copy of the other type takes the place and the name of an output."""
        copy = self._copy(value, is_half)
        name = value.name
        value.name = free_name(self.model, f"{name}_{'half' if is_half else 'float'}")
        copy.name = name
        for index, output in enumerate(self.model.graph.outputs):
            if output is value:
                self.model.graph.outputs[index] = copy


def _make_halves(node: ir.Node) -> None:
    """Rule 1 for what says its type itself."""
    if node.op_type == "Cast" and node.attributes["to"].as_int() == FLOAT:
        node.attributes["to"] = ir.AttrInt64("to", HALF)
    elif node.op_type in _MAKERS and node.attributes["value"].as_tensor().dtype == FLOAT:
        made = ir.Tensor(_half(node.attributes["value"].as_tensor().numpy()))
        node.attributes["value"] = ir.AttrTensor("value", made)
