"""The older form of an importance matrix, .dat: little-endian, no magic number.

    int32 entries; per entry: int32 length, name, int32 chunks, int32 values, float32[values]
    int32 chunks, int32 length, dataset                       (both missing in files of early 2024)

An entry's values are mean squares times its chunks. Source: ``save_imatrix_legacy`` in tools/imatrix/imatrix.cpp,
``common_imatrix_load_legacy`` in common/imatrix-loader.cpp (llama.cpp 0c1e57098).
"""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeq.formats.errors import FormatError
from edgeq.formats.gguf.types import MAX_NAME_BYTES
from edgeq.formats.mapping import close_mapping, map_file

_I32 = struct.Struct("<i")
_MIN_ENTRY_BYTES = 4 + 1 + 4 + 4 + 4  # length, name, chunks, number of values, one value


@dataclass(frozen=True)
class Dat:
    """What a .dat file holds: per name the values and, 1 or more, the chunks that they were multiplied with."""

    entries: dict[str, tuple[NDArray[np.float32], int]]
    datasets: list[str]
    chunk_count: int


def read_dat(path: Path) -> Dat:
    """Read a file, trusting no byte of it; raises FormatError, EdgeqError where it is unreadable."""
    mapping = map_file(path)
    try:
        return _parse(_Cursor(mapping, path))
    finally:
        close_mapping(mapping)


class _Cursor:
    """A place in the file that never goes past its end."""

    def __init__(self, data: mmap.mmap, path: Path) -> None:
        self.data, self.path, self.pos = data, path, 0

    def left(self) -> int:
        return len(self.data) - self.pos

    def fail(self, problem: str) -> FormatError:
        return FormatError(self.path, f"is no importance matrix: {problem}")

    def take(self, size: int, what: str) -> bytes:
        if size > self.left():
            raise self.fail(f"the file ends inside {what}: {size} bytes wanted, {self.left()} left")
        self.pos += size
        return self.data[self.pos - size : self.pos]

    def number(self, what: str, least: int, most: int) -> int:
        value = int(_I32.unpack(self.take(4, what))[0])
        if not least <= value <= most:
            room = f"{least} to {most}" if least <= most else "what the file has room for"
            raise self.fail(f"{what} is {value}, not {room}")
        return value


def _parse(cursor: _Cursor) -> Dat:
    n_entries = cursor.number("the number of entries", 1, cursor.left() // _MIN_ENTRY_BYTES)
    entries: dict[str, tuple[NDArray[np.float32], int]] = {}
    for index in range(n_entries):
        length = cursor.number(f"the name's length in entry {index}", 1, MAX_NAME_BYTES)
        name = _text(cursor, cursor.take(length, f"the name of entry {index}"), index)
        if name in entries:
            raise cursor.fail(f"entry {name!r} stands twice")
        chunks = cursor.number(f"the number of chunks of {name!r}", 0, 2**31 - 1)
        size = cursor.number(f"the number of values of {name!r}", 1, max(1, cursor.left() // 4))
        values = np.frombuffer(cursor.take(4 * size, f"the values of {name!r}"), "<f4")
        entries[name] = (
            values,
            max(1, chunks),
        )  # llama-quantize takes the values as they are where chunks is 0
    if not cursor.left():
        return Dat(entries, [], max(chunks for _, chunks in entries.values()))
    chunk_count = cursor.number("the number of chunks", 0, 2**31 - 1)
    if not cursor.left():
        return Dat(entries, [], chunk_count)
    dataset = cursor.take(cursor.number("the dataset's length", 0, cursor.left()), "the dataset's name")
    if cursor.left():
        raise cursor.fail(f"{cursor.left()} bytes follow its end")
    return Dat(entries, [dataset.decode("utf-8", "surrogateescape")] if dataset else [], chunk_count)


def _text(cursor: _Cursor, raw: bytes, index: int) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        raise cursor.fail(f"the name of entry {index}, {raw!r}, is not UTF-8") from None
