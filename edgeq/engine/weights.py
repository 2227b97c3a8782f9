"""Where the engine's weights come from: a checkpoint in float, or a GGUF file in its own block types."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from edgeq.families import TensorSpec
from edgeq.families.rope import interleaved_order
from edgeq.formats import blocks
from edgeq.formats.gguf.reader import GGUFFile

if TYPE_CHECKING:
    from edgeq.source import SourceModel

Floats = NDArray[np.float32]

_PANEL_VALUES = 4 << 20  # rows of a streamed matrix are read this many values at a time


class Weights(Protocol):
    """Weights by GGUF name, rows in Hugging Face order."""

    def has(self, name: str) -> bool:
        """Whether the model has that tensor."""

    def vector(self, name: str) -> Floats:
        """A one-dimensional tensor."""

    def picked(self, name: str, ids: NDArray[np.int64]) -> Floats:
        """Some rows of a matrix: ``[len(ids), columns]``."""

    def product(self, x: Floats, name: str, expert: int | None = None) -> Floats:
        """``x @ matrix.T``: ``[T, columns] -> [T, rows]``, with one matrix of a stack where ``expert`` is given."""


class CheckpointWeights:
    """Float weights of a checkpoint directory.

    ``keep`` holds them as float32 in memory; otherwise every product reads the matrix again, a panel of rows at a
    time, so that memory stays bounded whatever the model's size.
    """

    def __init__(self, source: SourceModel, keep: bool) -> None:
        self.source = source
        self.keep = keep
        self._kept: dict[str, Floats] = {}

    def has(self, name: str) -> bool:
        return self.source.has(name)

    def vector(self, name: str) -> Floats:
        if name not in self._kept:
            self._kept[name] = self.source.array(name)
        return self._kept[name]

    def picked(self, name: str, ids: NDArray[np.int64]) -> Floats:
        if self.keep:
            return self.vector(name)[ids]
        return np.concatenate([self.source.rows(name, i, i + 1) for i in ids.tolist()])

    def product(self, x: Floats, name: str, expert: int | None = None) -> Floats:
        if self.keep:
            return x @ (self.vector(name) if expert is None else self.vector(name)[expert]).T
        rows, columns = self.source.shape(name)[-2:]
        first = (expert or 0) * rows
        out = np.empty((len(x), rows), np.float32)
        step = max(1, _PANEL_VALUES // columns)
        for start in range(0, rows, step):
            stop = min(rows, start + step)
            out[:, start:stop] = x @ self.source.rows(name, first + start, first + stop).T
        self.source.release(name)
        return out


class GGUFWeights:
    """The tensors of a GGUF file, used as they are: a product decodes block by block."""

    def __init__(self, file: GGUFFile, specs: dict[str, TensorSpec]) -> None:
        self.file = file
        self.specs = specs
        self._vectors: dict[str, Floats] = {}
        self._reordered: dict[str, NDArray[np.uint8]] = {}

    def has(self, name: str) -> bool:
        return name in self.specs

    def vector(self, name: str) -> Floats:
        if name not in self._vectors:
            values = self.file.decode(name).reshape(-1)
            heads = self.specs[name].rope_heads
            self._vectors[name] = values[hugging_face_rows(len(values), heads)] if heads else values
        return self._vectors[name]

    def picked(self, name: str, ids: NDArray[np.int64]) -> Floats:
        info = self.file.info(name)
        return blocks.by_name(info.type_name).decode(self.file.rows(name)[ids], info.columns)

    def product(self, x: Floats, name: str, expert: int | None = None) -> Floats:
        from edgeq.kernels_cpu.matmul import matmul

        rows = self._rows(name)
        if expert is not None:
            height = self.specs[name].shape[-2]
            rows = rows[expert * height : (expert + 1) * height]
        return matmul(x, rows, self.file.info(name).type_name)

    def _rows(self, name: str) -> NDArray[np.uint8]:
        heads = self.specs[name].rope_heads
        if not heads:
            return self.file.rows(name)
        if name not in self._reordered:  # rows are whole blocks, so their order can change without decoding
            rows = self.file.rows(name)
            self._reordered[name] = rows[hugging_face_rows(len(rows), heads)]
        return self._reordered[name]


def hugging_face_rows(n_rows: int, heads: int) -> NDArray[np.int64]:
    """Which stored row stands at each Hugging Face row: the inverse of ``interleaved_order``."""
    return np.argsort(interleaved_order(n_rows, heads))
