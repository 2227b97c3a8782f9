"""The types of a graph's values, followed from its inputs and weights where nobody noted them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import onnx_ir as ir
from onnx import defs

from edgeq.formats.onnx.edit import is_standard

Types = dict[ir.Value, ir.DataType]
# ONNX Runtime's operators whose type is not that of their first input: of GatherBlockQuantized the scales give it.
_TYPED_BY = {"GatherBlockQuantized": 2}
_NAMES = {"float": ir.DataType.FLOAT, "double": ir.DataType.DOUBLE}


def follow_types(model: ir.Model) -> Types:
    """Types of the main graph's values, as far as the graph says them; one without a schema gives its input's."""
    types: Types = {
        value: value.dtype
        for value in (*model.graph.inputs, *model.graph.initializers.values())
        if value.dtype is not None
    }
    for node in model.graph:
        for value, kind in zip(node.outputs, _results(model, node, types), strict=True):
            found = value.dtype or kind
            if found is not None:
                types[value] = found
    return types


def schema_of(model: ir.Model, node: ir.Node) -> defs.OpSchema | None:
    """What ONNX says of the node's operator at the graph's opset; None for one that is not ONNX's."""
    if not is_standard(node):
        return None
    try:
        return defs.get_schema(node.op_type, model.opset_imports[""], "")
    except defs.SchemaError:
        return None


def formal_types(
    formal: Sequence[defs.OpSchema.FormalParameter], values: Sequence[ir.Value | None]
) -> Iterator[tuple[str, ir.Value | None]]:
    """Each value with the name of its type in the schema; the last parameter may stand for many."""
    for index, value in enumerate(values):
        yield formal[min(index, len(formal) - 1)].type_str, value


def _results(model: ir.Model, node: ir.Node, types: Types) -> list[ir.DataType | None]:
    own = _told_by_attributes(node)
    schema = schema_of(model, node)
    if own is not None or schema is None:
        index = _TYPED_BY.get(node.op_type, 0)
        value = node.inputs[index] if index < len(node.inputs) else None
        kind = own or (None if value is None else types.get(value))
        return [kind for _ in node.outputs]
    known = {
        name: types[value]
        for name, value in formal_types(schema.inputs, node.inputs)
        if value is not None and value in types
    }
    allowed = {one.type_param_str: one.allowed_type_strs for one in schema.type_constraints}
    return [
        known.get(name) or _only(allowed.get(name, [name]))
        for name, _ in formal_types(schema.outputs, node.outputs)
    ]


def _told_by_attributes(node: ir.Node) -> ir.DataType | None:
    if node.op_type == "Cast":
        return ir.DataType(node.attributes["to"].as_int())
    if node.op_type in ("Constant", "ConstantOfShape"):
        value = node.attributes.get("value")
        if value is not None:
            return value.as_tensor().dtype
        return ir.DataType.FLOAT if node.op_type == "ConstantOfShape" else None
    if node.op_type == "QuantizeLinear":
        zero = node.inputs[2] if len(node.inputs) > 2 else None
        return ir.DataType.UINT8 if zero is None else zero.dtype
    return None


def _only(allowed: Sequence[str]) -> ir.DataType | None:
    """The type, where there is one only: ``tensor(int64)``."""
    name = next(iter(allowed)).removeprefix("tensor(").removesuffix(")")
    if len(allowed) != 1 or "(" in name:
        return None
    return _NAMES.get(name) or ir.DataType[name.upper()]
