"""The GGUF converter: a checkpoint becomes a quantized file in one streaming pass, no 16-bit file in between."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeq.errors import InputError
from edgeq.families.rope import interleaved_order
from edgeq.formats.gguf.mixes import Choice, ModelShape, choose_types, file_type
from edgeq.formats.gguf.types import TENSOR_TYPES_BY_NAME
from edgeq.formats.gguf.vocab import tokenizer_metadata
from edgeq.formats.gguf.writer import GGUFWriter, TensorPlan, Typed, ValueType
from edgeq.source import SourceModel

ROPE_FACTORS = "rope_freqs.weight"
_CHUNK_VALUES = 4 << 20  # rows are read, encoded and written this many values at a time (16 MB of float32)
_QUANTIZATION_VERSION = 2  # GGML_QNT_VERSION
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class TensorResult:
    """What became of a tensor: its type, its bytes, and the rounding error relative to its own size.

    ``error`` is sqrt(sum((w - q)²) / sum(w²)), 0 where the type holds the values exactly.
    """

    name: str
    type_name: str
    shape: tuple[int, ...]
    nbytes: int
    error: float


@dataclass(frozen=True)
class GGUFPlan:
    """Which type each tensor gets, and what the fallbacks cost."""

    quant: str
    choices: list[Choice]
    tensors: list[TensorPlan]

    def nbytes(self, tensor: TensorPlan, type_name: str | None = None) -> int:
        """Bytes of a tensor in its own type, or in another one (as if its rows divided)."""
        kind = TENSOR_TYPES_BY_NAME[type_name or tensor.type_name]
        return round(int(np.prod(tensor.shape)) / kind.block_values * kind.block_bytes)

    def total(self) -> int:
        return sum(self.nbytes(tensor) for tensor in self.tensors)

    def fallbacks(self) -> list[tuple[Choice, int]]:
        """Tensors whose rows do not divide by the wanted type's block, and the extra bytes of the type they get."""
        shapes = {tensor.name: tensor for tensor in self.tensors}
        return [
            (choice, self.nbytes(shapes[choice.name]) - self.nbytes(shapes[choice.name], choice.wanted_type))
            for choice in self.choices
            if choice.is_fallback
        ]


def plan(source: SourceModel, quant: str) -> GGUFPlan:
    """The types of all tensors under llama.cpp's mix ``quant``; raises EdgeqError for an unknown name."""
    hp = source.hp
    shape = ModelShape(source.family.architecture, hp.n_layers, hp.n_heads, hp.n_kv_heads)
    named = [(spec.name, spec.shape) for spec in source.specs.values()]
    choices = choose_types(quant, shape, named)
    tensors = [
        TensorPlan(name, choice.type_name, dims) for (name, dims), choice in zip(named, choices, strict=True)
    ]
    if hp.rope is not None and hp.rope.factors is not None:
        tensors.append(TensorPlan(ROPE_FACTORS, "F32", (len(hp.rope.factors),)))
    return GGUFPlan(file_type(quant).name, choices, tensors)


def write(
    source: SourceModel, planned: GGUFPlan, path: Path, *, force: bool = False, progress: Progress | None = None
) -> list[TensorResult]:
    """Write the file, a few rows at a time; returns what became of each tensor."""
    results = []
    writer = GGUFWriter(
        path, source.family.architecture, metadata(source, planned), planned.tensors, force=force, progress=progress
    )
    with writer:
        for tensor in planned.tensors:
            if tensor.name == ROPE_FACTORS:
                assert source.hp.rope is not None
                writer.write_rows(tensor.name, np.asarray(source.hp.rope.factors, np.float32).view(np.uint8))
                results.append(TensorResult(tensor.name, "F32", tensor.shape, planned.nbytes(tensor), 0.0))
                continue
            error = _write_tensor(source, tensor, writer)
            results.append(TensorResult(tensor.name, tensor.type_name, tensor.shape, planned.nbytes(tensor), error))
    return results


def _write_tensor(source: SourceModel, tensor: TensorPlan, writer: GGUFWriter) -> float:
    from edgeq.devices.detect import instruction_set
    from edgeq.kernels_cpu.decode import decode
    from edgeq.kernels_cpu.encode import encode

    isa = instruction_set()
    squared_error = squared_size = 0.0
    for values in _stored_rows(source, tensor.name):
        if not np.isfinite(values).all():
            file = source.checkpoint.path_of(source.checkpoint_name(tensor.name))
            raise InputError(f"{file}: tensor {source.checkpoint_name(tensor.name)} holds NaN or infinity")
        coded = encode(tensor.type_name, values, isa=isa)
        writer.write_rows(tensor.name, coded)
        if tensor.type_name != "F32":
            difference = (decode(tensor.type_name, coded, values.shape[1], isa) - values).reshape(-1)
            squared_error += float(np.dot(difference, difference))
            squared_size += float(np.dot(values.reshape(-1), values.reshape(-1)))
    source.release(tensor.name)
    return float(np.sqrt(squared_error / squared_size)) if squared_size else 0.0


def _stored_rows(source: SourceModel, name: str) -> Iterator[NDArray[np.float32]]:
    """A tensor's rows in GGUF order, some at a time; a vector is one row."""
    spec = source.specs[name]
    if len(spec.shape) == 1:
        vector = source.array(name)
        yield (vector[interleaved_order(len(vector), spec.rope_heads)] if spec.rope_heads else vector)[None]
        return
    n_rows, columns = spec.shape
    unit = n_rows // spec.rope_heads if spec.rope_heads else 1  # a head's rows change places among themselves
    step = max(1, _CHUNK_VALUES // (columns * unit)) * unit
    for start in range(0, n_rows, step):
        rows = source.rows(name, start, min(n_rows, start + step))
        yield rows[interleaved_order(len(rows), len(rows) // unit)] if spec.rope_heads else rows


def metadata(source: SourceModel, planned: GGUFPlan) -> dict[str, Any]:
    """The file's metadata after general.architecture: general keys, the family's, the tokenizer's."""
    family, hp = source.family, source.hp
    keys: dict[str, Any] = {
        "general.type": "model",
        "general.name": source.name,
        "general.size_label": size_label(source.parameters()),
        "general.file_type": file_type(planned.quant).number,
        "general.quantization_version": _QUANTIZATION_VERSION,
    }
    keys |= {f"{family.architecture}.{key}": value for key, value in family.metadata(hp).items()}
    keys |= tokenizer_metadata(source.path, hp.vocab)
    if hp.n_token_types:
        keys["tokenizer.ggml.token_type_count"] = hp.n_token_types
    if "tokenizer.ggml.token_type" in keys:
        keys["tokenizer.ggml.token_type"] = Typed(keys["tokenizer.ggml.token_type"], ValueType.INT32)
    return keys


def size_label(parameters: int) -> str:
    """Parameters in the field's short form: 5.8M, 1.1B."""
    for unit, name in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "K")):
        if parameters >= unit:
            return f"{parameters / unit:.3g}{name}"
    return str(parameters)
