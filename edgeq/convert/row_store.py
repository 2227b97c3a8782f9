"""Rows of bytes by tensor name, in a temporary file: what is made of a model long before it can be written."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from edgeq.convert.gguf_sources import Rows

Bytes = NDArray[np.uint8]


class RowStore:
    """Written in order, read anywhere, by several threads."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._places: dict[str, tuple[int, int]] = {}  # where the tensor begins, bytes of a row

    @classmethod
    @contextmanager
    def open(cls, folder: Path) -> Iterator[RowStore]:
        """A store in a file without a name in that folder; it goes with the process."""
        with tempfile.TemporaryFile(prefix=".edgeq-rows-", dir=folder) as file:
            yield cls(file)

    def add(self, name: str, rows: Bytes) -> None:
        """Append uint8 ``[rows, row_bytes]``; all of a tensor before the next one's."""
        self._places.setdefault(name, (self._file.seek(0, 2), rows.shape[1]))
        self._file.write(rows.tobytes())
        self._file.flush()

    def __contains__(self, name: str) -> bool:
        return name in self._places

    def __len__(self) -> int:
        return len(self._places)

    def rows(self, name: str, rows: Rows) -> Bytes:
        """Rows from the first to before the last, uint8 ``[rows, row_bytes]``."""
        begin, width = self._places[name]
        shape = rows[1] - rows[0], width
        return np.array(np.memmap(self._file, np.uint8, "r", begin + rows[0] * width, shape))
