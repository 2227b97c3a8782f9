"""What allocation needs of GGUF files: the bytes around the tensors, and a file opened for a trial."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from edgeq.convert import gguf_file
from edgeq.convert.gguf_sources import RowSource
from edgeq.engine.model import Model, from_gguf
from edgeq.formats.gguf.mixes import is_quantizable
from edgeq.formats.gguf.reader import GGUFFile
from edgeq.formats.gguf.serialize import header_bytes
from edgeq.formats.gguf.types import DEFAULT_ALIGNMENT
from edgeq.formats.gguf.writer import lay_out

_OWN_KEYS = 1024  # bytes for what says how the file was made


@dataclass(frozen=True)
class Around:
    """Bytes of a file beside its quantized tensors, at most: ``header`` with all padding, and ``small`` tensors."""

    header: int
    small: int

    @property
    def total(self) -> int:
        return self.header + self.small


def around(rows: RowSource) -> Around:
    """What every file of the model has."""
    planned = gguf_file.plan(rows, "Q8_0")
    keys = rows.metadata() | {"general.architecture": rows.shape.architecture}
    header = len(header_bytes(keys, lay_out(planned.tensors, DEFAULT_ALIGNMENT))) + _OWN_KEYS
    small = [tensor for tensor in planned.tensors if not is_quantizable(tensor.name, tensor.shape)]
    padding = DEFAULT_ALIGNMENT * (len(planned.tensors) + 1)
    return Around(header + padding, sum(planned.nbytes(tensor) for tensor in small))


@contextmanager
def opened(path: Path) -> Iterator[Model]:
    """The file in the embedded engine."""
    with GGUFFile.open(path) as file:
        yield from_gguf(file)
