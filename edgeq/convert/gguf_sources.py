"""Where the rows of a GGUF file come from: another GGUF file. Checkpoint directories are in ``checkpoint_rows``,
which costs a tenth of a second to import.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edgeq.errors import FormatError
from edgeq.formats.gguf.mixes import ModelShape
from edgeq.formats.gguf.reader import GGUFFile
from edgeq.formats.gguf.split import SPLIT_KEYS, SplitGGUFFile

if TYPE_CHECKING:
    from edgeq.formats.checkpoint.quantized import Grid

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]
Shape = tuple[int, ...]

PIECE_VALUES = (
    1 << 20
)  # rows are read, encoded and written about this many values at a time (4 MB of float32)
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
        return pieces_of(self.file.info(name).n_rows, self.file.info(name).columns)

    def stored(self, name: str, rows: Rows) -> Bytes:
        stored = np.array(self.file.rows(name)[slice(*rows)])
        self.file.release(name, *rows)  # and not what other threads are reading
        return stored

    def rows(self, name: str, rows: Rows) -> Floats:
        from edgeq.devices.detect import instruction_set
        from edgeq.kernels_cpu.decode import decode

        info = self.file.info(name)
        values = decode(info.type_name, self.file.rows(name)[slice(*rows)], info.columns, instruction_set())
        self.file.release(name, *rows)
        return values

    def layout(self, name: str) -> str | None:
        return None

    def grid(self, name: str, rows: Rows) -> Grid | None:
        return None


def pieces_of(n_rows: int, columns: int, together: int = 1) -> list[Rows]:
    """Ranges of about PIECE_VALUES values and a multiple of ``together`` rows."""
    step = max(1, PIECE_VALUES // max(1, columns * together)) * together
    return [(first, min(n_rows, first + step)) for first in range(0, n_rows, step)]
