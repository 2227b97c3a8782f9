"""What allocation needs of GGUF files: the bytes around the tensors, and a file opened for a trial."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
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


def fixed_bytes(rows: RowSource) -> int:
    """What a file of the model has beside its quantized tensors, at most: header, small tensors, padding."""
    planned = gguf_file.plan(rows, "Q8_0")
    keys = rows.metadata() | {"general.architecture": rows.shape.architecture}
    header = len(header_bytes(keys, lay_out(planned.tensors, DEFAULT_ALIGNMENT))) + _OWN_KEYS
    small = [tensor for tensor in planned.tensors if not is_quantizable(tensor.name, tensor.shape)]
    return (
        header
        + sum(planned.nbytes(tensor) for tensor in small)
        + DEFAULT_ALIGNMENT * (len(planned.tensors) + 1)
    )


@contextmanager
def opened(path: Path) -> Iterator[Model]:
    """The file in the embedded engine."""
    with GGUFFile.open(path) as file:
        yield from_gguf(file)
