"""What ONNX Runtime's providers have kernels for: a table for each, NAME.toml, and what of a graph is not in it."""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import onnx_ir as ir

from edgeq.errors import InputError
from edgeq.formats.onnx.types import Types, follow_types

_FOLDER = Path(__file__).parent
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
    table, types = kernels(name), follow_types(model)
    problems = {}
    for node in model.graph:
        opset = model.opset_imports.get(node.domain, 1)
        problem = _problem(node, table.get((node.domain or "", node.op_type)), opset, types)
        if problem:
            problems[node.name or str(node.outputs[0].name)] = f"{node.op_type}: {problem}"
    return problems


def _problem(node: ir.Node, kernel: Kernel | None, opset: int, types: Types) -> str:
    if kernel is None:
        return "no kernel"
    if opset < kernel.since:
        return f"opset {opset}, its kernel begins with {kernel.since}"
    value = _input(node, _CHECKED_BY.get(node.op_type, 0))
    known = None if value is None else types.get(value)
    kind = None if known is None else known.numpy().name
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
