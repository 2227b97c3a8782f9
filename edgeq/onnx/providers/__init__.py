"""What ONNX Runtime's providers have kernels for: a table for each, NAME.toml, and what of a graph is not in it."""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import onnx_ir as ir

from edgeq.errors import InputError

_FOLDER = Path(__file__).parent
_INDEX = ("Shape", "Size")
_TRUTH = ("And", "Or", "Not", "Equal", "Less", "LessOrEqual", "Greater", "GreaterOrEqual")
# Where the input that gives an operator's type is not the first: the scales of what is dequantized, both of Where.
_TYPED_BY = {"Where": 1, "DequantizeLinear": 1, "GatherBlockQuantized": 2}
_CHECKED_BY = {"Where": 1, "GatherBlockQuantized": 2}


@dataclass(frozen=True)
class Kernel:
    """Least opset, types, block sizes by bits (MatMulNBits), and an input that must not be given."""

    since: int
    types: frozenset[str]
    blocks: Mapping[int, frozenset[int]] = field(default_factory=dict)
    without_input: int | None = None


@functools.cache
def kernels(name: str) -> dict[tuple[str, str], Kernel]:
    """(domain, operator) → kernel of the provider with that table; "" is ONNX's own domain."""
    path = _FOLDER / f"{name}.toml"
    if not path.is_file():
        known = ", ".join(sorted(table.stem for table in _FOLDER.glob("*.toml")))
        raise InputError(f"{name}: there is no table of its kernels; there are {known}")
    found = {}
    for domain, rows in tomllib.loads(path.read_text("utf-8"))["kernels"].items():
        for op_type, row in rows.items():
            blocks = {int(bits): frozenset(sizes) for bits, sizes in row.get("blocks", {}).items()}
            kernel = Kernel(row["since"], frozenset(row["types"]), blocks, row.get("without_input"))
            found["" if domain == "standard" else domain, op_type] = kernel
    return found


def left_to_cpu(model: ir.Model, name: str) -> dict[str, str]:
    """Nodes that a provider has no kernel for, by node or output name, and why; {} where it runs the whole graph.

    Types are followed through the graph as far as it says them; a type that is not known is not held against it.
    """
    table, types = kernels(name), _types(model.graph)
    problems = {}
    for node in model.graph:
        opset = model.opset_imports.get(node.domain, 1)
        problem = _problem(node, table.get((node.domain or "", node.op_type)), opset, types)
        if problem:
            problems[node.name or str(node.outputs[0].name)] = f"{node.op_type}: {problem}"
    return problems


def _problem(node: ir.Node, kernel: Kernel | None, opset: int, types: Mapping[ir.Value, str]) -> str:
    if kernel is None:
        return "no kernel"
    if opset < kernel.since:
        return f"opset {opset}, its kernel begins with {kernel.since}"
    value = _input(node, _CHECKED_BY.get(node.op_type, 0))
    kind = None if value is None else types.get(value)
    if kind is not None and kind not in kernel.types:
        return f"{kind}, its kernel has {', '.join(sorted(kernel.types))}"
    if kernel.without_input is not None and _input(node, kernel.without_input) is not None:
        return f"its kernel refuses input {kernel.without_input}"
    if kernel.blocks:
        bits, size = (node.attributes[name].as_int() for name in ("bits", "block_size"))
        if size not in kernel.blocks.get(bits, ()):
            return f"{bits} bits in blocks of {size}"
    return ""


def _input(node: ir.Node, index: int) -> ir.Value | None:
    return node.inputs[index] if index < len(node.inputs) else None


def _types(graph: ir.Graph) -> dict[ir.Value, str]:
    """The NumPy names of the values' types, followed from inputs and weights."""
    types = {
        value: value.dtype.numpy().name
        for value in (*graph.inputs, *graph.initializers.values())
        if value.dtype is not None
    }
    for node in graph:
        kind = _result(node, types)
        for value in node.outputs:
            if value.dtype is not None:
                types[value] = value.dtype.numpy().name
            elif kind:
                types[value] = kind
    return types


def _result(node: ir.Node, types: Mapping[ir.Value, str]) -> str:
    if node.op_type == "Cast":
        return ir.DataType(node.attributes["to"].as_int()).numpy().name
    if node.op_type in _INDEX:
        return "int64"
    if node.op_type in _TRUTH:
        return "bool"
    if node.op_type == "QuantizeLinear":
        zero = _input(node, 2)
        return types.get(zero, "") if zero is not None else "uint8"
    value = _input(node, _TYPED_BY.get(node.op_type, 0))
    return "" if value is None else types.get(value, "")
