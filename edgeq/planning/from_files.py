"""A model that is there: a checkpoint directory, a GGUF file, an ONNX graph. Only headers are read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any

from edgeq.convert.checkpoint_rows import CheckpointRows
from edgeq.convert.gguf_sources import GGUFRows
from edgeq.devices.work import CachedLayers
from edgeq.errors import FormatError, InputError
from edgeq.families.base import BY_ARCHITECTURE, MetadataReader
from edgeq.formats.gguf.mix_table import FILE_TYPES
from edgeq.formats.gguf.mixes import ModelShape
from edgeq.formats.gguf.reader import GGUFFile
from edgeq.formats.gguf.split import open_gguf
from edgeq.formats.gguf.writer import GGUFWriter, TensorPlan
from edgeq.planning.from_config import planned
from edgeq.planning.model import PlannedModel, Shape, cached_layers
from edgeq.source import SourceModel

Plans = Sequence[tuple[str, str, Shape]]
# ONNX's element types as the GGUF type of as many bytes.
_ONNX_TYPES = {
    "FLOAT": "F32",
    "FLOAT16": "F16",
    "BFLOAT16": "BF16",
    "INT8": "I8",
    "UINT8": "I8",
    "INT64": "I64",
}
_ONNX_4_BITS = "Q4_0"
_QUANTIZED_ONNX = {"I8": "int8", _ONNX_4_BITS: "int4", "F16": "float16", "BF16": "bfloat16", "F32": "float32"}


def directory(path: Path) -> PlannedModel:
    """A Hugging Face directory with weights: its tensors as they are, the tokenizer converted to know its size."""
    source = SourceModel.open(path)
    rows = CheckpointRows(source)
    model = planned(path.resolve(), source.family, source.hp, rows.tensors, exact=True)
    try:
        metadata = rows.metadata()
    except (InputError, FormatError):  # nothing that llama.cpp could run: ONNX is left
        return replace(model, exact=False, to=("onnx",))
    return replace(model, name=source.name, gguf_bytes=_exact_bytes(rows.shape.architecture, metadata))


def gguf(path: Path) -> PlannedModel:
    """A GGUF file of any architecture whose keys are llama.cpp's."""
    with open_gguf(path) as file:
        rows = GGUFRows(file)
        shape = rows.shape
        keys = _Keys(file, shape.architecture)
        hidden = keys.count("embedding_length")
        width = keys.count("attention.key_length", hidden // max(1, shape.n_heads))
        vocabulary = next((dims[0] for name, dims in rows.tensors if name == "token_embd.weight"), 0)
        causal = file.metadata.get(f"{shape.architecture}.attention.causal", True) is not False
        size = sum(path.stat().st_size for path in rows.files)
        return PlannedModel(
            name=str(file.metadata.get("general.name") or path.stem),
            kind="decoder" if causal else "encoder",
            shape=shape,
            tensors=rows.tensors,
            context=keys.count("context_length"),
            hidden=hidden,
            vocab=vocabulary,
            head_values=shape.n_heads * width,
            cached=_cached(file, shape, width) if causal else (),
            gguf_bytes=_exact_bytes(shape.architecture, rows.metadata()),
            experts_used=keys.count("expert_used_count", 0),
            stored={name: info.type_name for name, info in file.tensors.items()},
            stored_name=_file_type(file),
            stored_bytes=size,
            to=("gguf",),
            folder=path.resolve().parent,
            gguf_keys=rows.metadata,
        )


def onnx(path: Path) -> PlannedModel:
    """An ONNX graph: its weights' types and shapes. Only as it is: a graph does not say which weight is what."""
    import onnx_ir as ir

    from edgeq.formats.onnx.read import parse_model

    model = parse_model(path)
    tensors, stored, size = [], {}, path.stat().st_size
    for name, value in model.graph.initializers.items():
        tensor = value.const_value
        if tensor is None or len(tensor.shape) < 2:
            continue
        dims = tuple(int(d) for d in tensor.shape if isinstance(d, int))
        bits = any(use.op_type == "MatMulNBits" for use, _ in value.uses())
        if bits and len(dims) == 3:  # [rows, blocks, bytes]: two weights in a byte
            dims = (dims[0], dims[1] * dims[2] * 2)
        kind = _ONNX_4_BITS if bits and tensor.dtype.name == "UINT8" else _ONNX_TYPES.get(tensor.dtype.name)
        if kind is None or min(dims) < 1:
            continue
        tensors.append((name, dims))
        stored[name] = kind
        if isinstance(tensor, ir.ExternalTensor):
            size += tensor.nbytes
    past = [value for value in model.graph.inputs if value.name and value.name.endswith(".key")]
    largest = max(tensors, key=lambda t: prod(t[1]), default=("", (1, 1)))[1]
    hidden = min(largest)
    by_bytes = {kind: sum(prod(d) for n, d in tensors if stored[n] == kind) for kind in set(stored.values())}
    return PlannedModel(
        name=path.stem,
        kind="decoder" if past else "encoder",
        shape=ModelShape("onnx", n_layers=max(1, len(past)), n_heads=0, n_kv_heads=0),
        tensors=tensors,
        context=0,
        hidden=hidden,
        vocab=max(largest) if past else 0,
        head_values=hidden,
        cached=[CachedLayers(1, 2 * _static_values(value)) for value in past],
        gguf_bytes=lambda plans: 0,
        stored=stored,
        stored_name=_QUANTIZED_ONNX.get(max(by_bytes, key=by_bytes.__getitem__, default="F32"), "mixed"),
        stored_bytes=size,
        to=(),
        folder=path.resolve().parent,
    )


def _static_values(value: Any) -> int:
    """Values of one position in a cache's input: heads × width, the sizes that are numbers."""
    sizes = [size for size in (value.shape or ()) if isinstance(size, int)]
    return prod(sizes) if sizes else 1


def _exact_bytes(architecture: str, metadata: Mapping[str, Any]) -> Callable[[Plans], int]:
    """The bytes of a file with this metadata, less those of its tensors' values."""

    def count(plans: Plans) -> int:
        tensors = [TensorPlan(name, kind, shape) for name, kind, shape in plans]
        # The two keys that a converter adds are numbers of four bytes, whatever they say.
        pairs = {**metadata, "general.file_type": 0, "general.quantization_version": 2}
        writer = GGUFWriter("planned.gguf", architecture, pairs, tensors, force=True)
        return writer.file_bytes - sum(writer.planned_bytes(plan.name) for plan in tensors)

    return count


def _cached(file: GGUFFile, shape: ModelShape, width: int) -> list[CachedLayers]:
    """What is cached: by its family where edgeq knows it, else every layer all positions."""
    family = BY_ARCHITECTURE.get(shape.architecture)
    if family is not None and getattr(family, "llama_cpp_windows", False):
        shapes = {name: info.shape for name, info in file.tensors.items()}
        try:
            hp = family.from_metadata(MetadataReader(shape.architecture, file.metadata, shapes))
        except InputError:
            pass
        else:
            return cached_layers(hp, windows=True)
    return [CachedLayers(shape.n_layers, 2 * shape.n_kv_heads * width)]


def _file_type(file: GGUFFile) -> str:
    number = file.metadata.get("general.file_type")
    return next((kind.name for kind in FILE_TYPES.values() if kind.number == number), "as it is")


class _Keys:
    """Counts in one architecture's metadata; a list (one for each layer) counts by its largest."""

    def __init__(self, file: GGUFFile, architecture: str) -> None:
        self._file, self._architecture = file, architecture

    def count(self, key: str, default: int | None = None) -> int:
        full = f"{self._architecture}.{key}"
        value = self._file.metadata.get(full, default)
        if isinstance(value, list):
            value = max(value, default=default)
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**31:
            raise FormatError(self._file.path, f"metadata {full}: must be a count, not {value!r}")
        return value
