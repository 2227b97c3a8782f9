"""Where the rows of a GGUF file come from: a checkpoint directory, or another GGUF file."""

from __future__ import annotations

from math import prod
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edgeq.errors import FormatError
from edgeq.families.rope import interleaved_order
from edgeq.formats.checkpoint.quantized import Grid
from edgeq.formats.gguf.mixes import ModelShape
from edgeq.formats.gguf.reader import GGUFFile
from edgeq.formats.gguf.split import SPLIT_KEYS, SplitGGUFFile
from edgeq.formats.gguf.types import Typed, ValueType
from edgeq.formats.gguf.vocab import tokenizer_metadata
from edgeq.source import SourceModel

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]
Shape = tuple[int, ...]

PIECE_VALUES = (
    1 << 20
)  # rows are read, encoded and written about this many values at a time (4 MB of float32)
# Lists that llama.cpp reads as other types than numbers of their size would get.
_VALUE_TYPES = {
    "tokenizer.ggml.token_type": ValueType.INT32,
    "tokenizer.ggml.precompiled_charsmap": ValueType.UINT8,
}
Rows = tuple[int, int]  # from the first row to before the last


class RowSource(Protocol):
    """A model whose tensors can be read a few rows at a time, by several threads, in GGUF's names and row order."""

    where: str  # the file or folder, for messages
    files: list[Path]  # GGUF files that are being read
    shape: ModelShape
    tensors: list[tuple[str, Shape]]  # in file order, NumPy shapes
    notes: list[str]  # what llama.cpp leaves out when it runs the model, one line each

    def metadata(self) -> dict[str, Any]:
        """Everything but general.architecture, general.file_type and general.quantization_version."""

    def stored_type(self, name: str) -> str | None:
        """The block type in which the tensor is stored, where its bytes could be copied; None otherwise."""

    def pieces(self, name: str) -> list[Rows]:
        """Ranges of rows that make up the tensor, each a fit piece of work; a vector is one row."""

    def stored(self, name: str, rows: Rows) -> Bytes:
        """One of its pieces as it is stored."""

    def rows(self, name: str, rows: Rows) -> Floats:
        """One of its pieces as float32."""

    def layout(self, name: str) -> str | None:
        """How others quantized the tensor before, where ``rows`` decodes what they made of it; None otherwise."""

    def grid(self, name: str, rows: Rows) -> Grid | None:
        """One of its pieces as the integers that others quantized it to; None where they did not."""


class CheckpointRows:
    """A Hugging Face directory."""

    def __init__(self, source: SourceModel) -> None:
        self.source = source
        self.where = str(source.path)
        self.files: list[Path] = []
        hp = source.hp
        self.shape = ModelShape(
            source.family.architecture, hp.n_layers, hp.n_heads, hp.n_kv_heads, hp.n_experts
        )
        self.tensors: list[tuple[str, Shape]] = [(spec.name, spec.shape) for spec in source.specs.values()]
        self.notes = source.family.gguf_notes(hp)
        self._rope = hp.rope.tensors() if hp.rope is not None else {}
        self.tensors += [(name, (len(values),)) for name, values in self._rope.items()]

    def metadata(self) -> dict[str, Any]:
        source, hp = self.source, self.source.hp
        prefix = source.family.architecture
        keys: dict[str, Any] = {
            "general.type": "model",
            "general.name": source.name,
            "general.size_label": size_label(source.parameters()),
        }
        keys |= {f"{prefix}.{key}": value for key, value in source.family.metadata(hp).items()}
        keys |= tokenizer_metadata(source.path, hp.vocab)
        if source.family.kind == "encoder":  # BERT's graph wants one even where it has no such table
            keys["tokenizer.ggml.token_type_count"] = max(1, hp.n_token_types)
        return keys | {key: Typed(keys[key], kind) for key, kind in _VALUE_TYPES.items() if key in keys}

    def stored_type(self, name: str) -> str | None:
        return None

    def pieces(self, name: str) -> list[Rows]:
        if name in self._rope or len(self.source.specs[name].shape) == 1:
            return [(0, 1)]
        *rows, columns = self.source.specs[name].shape
        return _pieces(prod(rows), columns, self._head_rows(name))

    def _head_rows(self, name: str) -> int:
        """Rows that must stay together: those of a head change places inside it."""
        spec = self.source.specs[name]
        return spec.shape[0] // spec.rope_heads if spec.rope_heads else 1

    def stored(self, name: str, rows: Rows) -> Bytes:
        raise AssertionError("a checkpoint has no block types")

    def rows(self, name: str, rows: Rows) -> Floats:
        source = self.source
        if name in self._rope:
            return np.asarray(self._rope[name], np.float32)[None]
        spec = source.specs[name]
        if len(spec.shape) == 1:
            vector = source.array(name)
            order = interleaved_order(len(vector), spec.rope_heads) if spec.rope_heads else slice(None)
            return np.asarray(vector[order][None])
        values = source.rows(name, *rows)
        source.release(name)  # pages that were read count as resident until they are let go
        return values if not spec.rope_heads else np.asarray(values[self._order(name, len(values))])

    def layout(self, name: str) -> str | None:
        return None if name in self._rope else self.source.layout(name)

    def grid(self, name: str, rows: Rows) -> Grid | None:
        if self.layout(name) is None:
            return None
        grid = self.source.grid(name, *rows)
        self.source.release(name)
        if grid is None or not self.source.specs[name].rope_heads:
            return grid
        return grid.reordered(self._order(name, len(grid.codes)))

    def _order(self, name: str, n_rows: int) -> NDArray[np.int64]:
        """Where each of some whole heads' rows comes from."""
        return interleaved_order(n_rows, n_rows // self._head_rows(name))


class GGUFRows:
    """A GGUF file of any architecture."""

    def __init__(self, file: GGUFFile) -> None:
        self.file = file
        self.notes: list[str] = []
        self.where = str(file.path)
        self.files = [s.path for s in file.shards] if isinstance(file, SplitGGUFFile) else [file.path]
        self.tensors: list[tuple[str, Shape]] = [(info.name, info.shape) for info in file.tensors.values()]
        architecture = file.metadata.get("general.architecture")
        if not isinstance(architecture, str):
            raise FormatError(file.path, "general.architecture is missing", "it holds no model")
        heads = self._count(f"{architecture}.attention.head_count", 0)
        self.shape = ModelShape(
            architecture,
            n_layers=self._count(f"{architecture}.block_count", 0),
            n_heads=heads,
            n_kv_heads=self._count(f"{architecture}.attention.head_count_kv", heads),
            n_experts=self._count(f"{architecture}.expert_count", 0),
        )

    def _count(self, key: str, default: int) -> int:
        value = self.file.metadata.get(key, default)
        if isinstance(value, list):  # some architectures give one per layer
            value = max(value, default=default)
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise FormatError(self.file.path, f"metadata {key}: must be a count, not {value!r}")
        return value

    def metadata(self) -> dict[str, Any]:
        """The file's own keys with their types, without those that describe its shards."""
        left_out = {*SPLIT_KEYS, "general.architecture", "general.file_type", "general.quantization_version"}
        return {key: value for key, value in self.file.typed_metadata().items() if key not in left_out}

    def stored_type(self, name: str) -> str | None:
        return self.file.info(name).type_name

    def pieces(self, name: str) -> list[Rows]:
        return _pieces(self.file.info(name).n_rows, self.file.info(name).columns)

    def stored(self, name: str, rows: Rows) -> Bytes:
        stored = np.array(self.file.rows(name)[slice(*rows)])
        self.file.release(name)
        return stored

    def rows(self, name: str, rows: Rows) -> Floats:
        from edgeq.devices.detect import instruction_set
        from edgeq.kernels_cpu.decode import decode

        info = self.file.info(name)
        values = decode(info.type_name, self.file.rows(name)[slice(*rows)], info.columns, instruction_set())
        self.file.release(name)
        return values

    def layout(self, name: str) -> str | None:
        return None

    def grid(self, name: str, rows: Rows) -> Grid | None:
        return None


def _pieces(n_rows: int, columns: int, together: int = 1) -> list[Rows]:
    """Ranges of about PIECE_VALUES values and a multiple of ``together`` rows."""
    step = max(1, PIECE_VALUES // max(1, columns * together)) * together
    return [(first, min(n_rows, first + step)) for first in range(0, n_rows, step)]


def size_label(parameters: int) -> str:
    """Parameters in the field's short form: 5.8M, 1.1B."""
    for unit, name in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "K")):
        if parameters >= unit:
            return f"{parameters / unit:.3g}{name}"
    return str(parameters)
