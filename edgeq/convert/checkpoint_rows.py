"""Where the rows of a GGUF file come from: a checkpoint directory. Another GGUF file is in ``gguf_sources``."""

from __future__ import annotations

from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeq.convert.gguf_sources import Bytes, Floats, Rows, Shape, pieces_of
from edgeq.families.rope import interleaved_order
from edgeq.formats.checkpoint.quantized import Grid
from edgeq.formats.gguf.mixes import ModelShape
from edgeq.formats.gguf.types import Typed, ValueType
from edgeq.formats.gguf.vocab import tokenizer_metadata
from edgeq.source import SourceModel

# Lists that llama.cpp reads as other types than numbers of their size would get.
_VALUE_TYPES = {
    "tokenizer.ggml.token_type": ValueType.INT32,
    "tokenizer.ggml.precompiled_charsmap": ValueType.UINT8,
}


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
        return pieces_of(prod(rows), columns, self._head_rows(name))

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


def size_label(parameters: int) -> str:
    """Parameters in the field's short form: 5.8M, 1.1B."""
    for unit, name in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "K")):
        if parameters >= unit:
            return f"{parameters / unit:.3g}{name}"
    return str(parameters)
