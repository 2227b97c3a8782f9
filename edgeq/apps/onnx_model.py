"""A written ONNX graph as the layouts see it: precision, inputs, outputs, the files that go with it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import onnx_ir as ir

from edgeq.apps.gguf_model import file_safe
from edgeq.formats.onnx.read import external_files, read_model, tensors
from edgeq.source import COMPANIONS

# The operators that hold weights in blocks, and the bits where an attribute does not say them.
_BLOCKED = {"MatMulNBits": 4, "GatherBlockQuantized": 4, "MatMulBnb4": 4}
_LEAST_SHARE = 0.1  # of the weights: fewer do not give a file its name
_FLOATS = {"FLOAT": "float32", "FLOAT16": "float16", "BFLOAT16": "bfloat16"}
# The first release with an opset (Versioning.md of ONNX Runtime); 1.23 is the first that edgeq is tested with.
_RELEASES = ((13, "1.7"), (14, "1.8"), (15, "1.9"), (16, "1.11"), (17, "1.12"), (18, "1.14"), (19, "1.15"),
             (20, "1.17"), (21, "1.18"))  # fmt: skip
TESTED_RUNTIME = "1.23"


@dataclass(frozen=True)
class ONNXModel:
    """``precision`` is float32, float16, bfloat16, q8, q4, q4f16, q2 or bnb4, as most of its weights are."""

    path: Path
    graph: ir.Model
    name: str
    precision: str

    @property
    def data_files(self) -> list[str]:
        """The locations of external data, in the order of their first use, as the file names them."""
        return external_files(self.graph)

    @property
    def companions(self) -> dict[str, Path]:
        """The small files of the model that lie beside the graph."""
        folder = self.path.parent
        return {name: folder / name for name in COMPANIONS if (folder / name).is_file()}


def onnx_model(path: Path, name: str | None = None) -> ONNXModel:
    """Read the graph; raises FormatError. Without a name it is the folder's."""
    graph = read_model(path)
    generic = path.stem == "model" or path.stem.startswith("model_")
    called = path.absolute().parent.name if generic else path.stem
    return ONNXModel(path, graph, file_safe(name or called), precision(graph))


def precision(graph: ir.Model) -> str:
    """What most of the weights are stored as; the fewest bits that at least a tenth of them has."""
    counts: dict[str, int] = {}
    for name, tensor in tensors(graph):
        kind, values = _kind(graph, name, tensor)
        if kind:
            counts[kind] = counts.get(kind, 0) + values
    total = sum(counts.values())
    large = {kind for kind, count in counts.items() if count >= _LEAST_SHARE * total}
    found = next((kind for kind in ("q2", "bnb4", "q4", "q8") if kind in large), None)
    if found is None:
        return max(counts, key=counts.__getitem__, default="float32")
    halves = counts.get("float16", 0) > counts.get("float32", 0)
    return "q4f16" if found == "q4" and halves else found


def _kind(graph: ir.Model, name: str, tensor: ir.TensorProtocol) -> tuple[str, int]:
    """A constant's precision and how many weights it holds; none for what is no weight."""
    values = prod(int(size) for size in tensor.shape if isinstance(size, int))
    if tensor.dtype.name in _FLOATS:
        return _FLOATS[tensor.dtype.name], values
    bits = tensor.dtype.bitwidth
    if tensor.dtype.name.lstrip("U").startswith("INT") and bits <= 4:
        return f"q{bits}", values
    value = graph.graph.initializers.get(name)
    for use, index in value.uses() if value is not None else ():
        if use.op_type in _BLOCKED and tensor.dtype.name == "UINT8" and index == _weight_input(use):
            attribute = use.attributes.get("bits")
            bits = attribute.as_int() if attribute is not None else _BLOCKED[use.op_type]
            return ("bnb4" if use.op_type == "MatMulBnb4" else f"q{bits}"), values * 8 // bits
    return ("q8", values) if tensor.dtype.name in ("INT8", "UINT8") else ("", 0)


def _weight_input(node: ir.Node) -> int:
    return 0 if node.op_type == "GatherBlockQuantized" else 1


def described(values: Iterator[ir.Value] | Any) -> list[dict[str, Any]]:
    """Inputs or outputs as a manifest has them: name, type in onnxruntime-common's words, shape."""
    rows = []
    for value in values:
        shape = [size if isinstance(size, int) else str(size) for size in value.shape or ()]
        kind = value.dtype.name.lower() if value.dtype is not None else "unknown"
        names = {"float": "float32", "double": "float64"}
        rows.append({"name": value.name, "type": names.get(kind, kind), "shape": shape})
    return rows


def least_runtime(graph: ir.Model) -> str:
    """The least ONNX Runtime for the graph's opset; for other operators than ONNX's, the least tested one."""
    opset = graph.opset_imports.get("", 1)
    used = {node.domain for node in graph.graph.all_nodes()}
    if used - {"", "ai.onnx"}:
        return TESTED_RUNTIME
    return next((release for newest, release in _RELEASES if opset <= newest), TESTED_RUNTIME)
