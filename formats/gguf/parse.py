"""The header of a GGUF file, parsed without trusting a byte of it.

Every rejection mirrors one of ``gguf_init_from_reader`` in ggml/src/gguf.cpp (llama.cpp 0c1e57098); sizes are
compared with the bytes that are left before anything is read or allocated.
"""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any, NoReturn

from edgeq.formats.errors import FormatError
from edgeq.formats.gguf.types import (
    ALIGNMENT_KEY,
    DEFAULT_ALIGNMENT,
    MAGIC,
    MAX_DIMS,
    MAX_NAME_BYTES,
    NUMBER_FORMATS,
    TENSOR_TYPES,
    VERSION,
    Value,
    ValueType,
    padded,
)

MAX_STRING_BYTES = 1 << 30  # GGUF_MAX_STRING_LENGTH
MAX_ARRAY_ELEMENTS = 1 << 30  # GGUF_MAX_ARRAY_ELEMENTS
_MIN_PAIR_BYTES = 8 + 1 + 4 + 1  # key length, key, type, value
_MIN_TENSOR_BYTES = 8 + 4 + 4 + 8  # name length, dimension count, type, offset
_INT64_MAX = (1 << 63) - 1
_AGAIN = "download or convert it again"

_U64 = struct.Struct("<Q")
_I64 = struct.Struct("<q")
_U32 = struct.Struct("<I")
_I32 = struct.Struct("<i")


@dataclass(frozen=True)
class TensorInfo:
    """Where a tensor lies in the file, and what its bytes mean.

    ``shape`` is in NumPy's order: rows first, the columns (ggml's ne[0]) last. ``offset`` counts from the
    start of the file.
    """

    name: str
    type_name: str
    type_id: int
    shape: tuple[int, ...]
    offset: int
    nbytes: int

    @property
    def columns(self) -> int:
        return self.shape[-1] if self.shape else 1

    @property
    def n_rows(self) -> int:
        return prod(self.shape[:-1])

    @property
    def row_bytes(self) -> int:
        kind = TENSOR_TYPES[self.type_id]
        return self.columns // kind.block_values * kind.block_bytes


@dataclass(frozen=True)
class Header:
    """All of a file but its tensor data; ``types`` holds, for an array, the type of its elements."""

    version: int
    alignment: int
    metadata: dict[str, Value]
    types: dict[str, ValueType]
    tensors: dict[str, TensorInfo]


def parse_header(data: mmap.mmap | bytes, path: Path) -> Header:
    """Parse and check the header, and that every tensor's bytes are there; raises FormatError."""
    cursor = _Cursor(data, path)
    version, n_tensors, n_pairs = _read_preamble(cursor)
    metadata: dict[str, Value] = {}
    types: dict[str, ValueType] = {}
    for i in range(n_pairs):
        key = cursor.name(f"key {i}")
        if not key:
            cursor.fail(f"key {i} is empty")
        if key in metadata:
            cursor.fail(f"key {key!r} stands twice")
        types[key], metadata[key] = _read_value(cursor, key)
    alignment = _alignment(cursor, metadata, types)
    found = [_read_tensor(cursor, i) for i in range(n_tensors)]
    start = padded(cursor.pos, alignment) if found else cursor.pos
    return Header(version, alignment, metadata, types, _place(cursor, found, start, alignment))


class _Cursor:
    """A position in the file; every step is checked against its end."""

    def __init__(self, data: mmap.mmap | bytes, path: Path) -> None:
        self.data, self.path = data, path
        self.pos, self.end = 0, len(data)

    def fail(self, problem: str, remedy: str = _AGAIN) -> NoReturn:
        raise FormatError(self.path, f"{problem} (at byte {self.pos})", remedy)

    def need(self, size: int, what: str) -> None:
        if size > self.end - self.pos:
            self.fail(f"the file ends inside {what}: {size} bytes wanted, {self.end - self.pos} left")

    def number(self, layout: struct.Struct, what: str) -> Any:
        self.need(layout.size, what)
        (value,) = layout.unpack_from(self.data, self.pos)
        self.pos += layout.size
        return value

    def string(self, what: str) -> bytes:
        size = self.number(_U64, what)
        if size > MAX_STRING_BYTES:
            self.fail(f"{what}: a string of {size} bytes is over the limit of {MAX_STRING_BYTES}")
        self.need(size, what)
        self.pos += size
        return self.data[self.pos - size : self.pos]

    def name(self, what: str) -> str:
        raw = self.string(what)
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError:
            self.fail(f"{what}: {raw[:40]!r} is not UTF-8")


def _read_preamble(cursor: _Cursor) -> tuple[int, int, int]:
    """Check magic and version; return the version and the counts of tensors and of key-value pairs."""
    magic = cursor.data[:4]
    if magic != MAGIC:
        cursor.fail(f"starts with {magic!r}, not {MAGIC!r}", "it is not a GGUF file")
    cursor.pos = 4
    version = cursor.number(_U32, "the version")
    if version and not version & 0xFFFF:
        cursor.fail(f"version {version:#x} is byte-swapped", "big-endian files are not read")
    if not 2 <= version <= VERSION:
        cursor.fail(f"version {version}; versions 2 and {VERSION} are read", "convert the model again")
    counts = []
    for what, least in (("tensors", _MIN_TENSOR_BYTES), ("key-value pairs", _MIN_PAIR_BYTES)):
        count = cursor.number(_I64, f"the number of {what}")
        if not 0 <= count <= (cursor.end - cursor.pos) // least:
            cursor.fail(f"{count} {what} do not fit in the {cursor.end - cursor.pos} bytes left")
        counts.append(count)
    return version, counts[0], counts[1]


def _read_value(cursor: _Cursor, key: str) -> tuple[ValueType, Value]:
    """Read a pair's type and value; for an array the returned type is that of its elements."""
    what = f"key {key!r}"
    kind = _value_type(cursor, what)
    if kind is not ValueType.ARRAY:
        if kind is ValueType.STRING:
            return kind, cursor.string(what).decode("utf-8", "surrogateescape")
        return kind, _read_numbers(cursor, kind, 1, what)[0]
    kind = _value_type(cursor, f"the elements of {what}")
    if kind is ValueType.ARRAY:
        cursor.fail(f"{what}: arrays of arrays are not GGUF")
    count = cursor.number(_U64, what)
    if count > MAX_ARRAY_ELEMENTS:
        cursor.fail(f"{what}: an array of {count} elements is over the limit of {MAX_ARRAY_ELEMENTS}")
    if kind is ValueType.STRING:
        return kind, _read_strings(cursor, count, what)
    return kind, _read_numbers(cursor, kind, count, what)


def _value_type(cursor: _Cursor, what: str) -> ValueType:
    number = cursor.number(_I32, f"the type of {what}")
    try:
        return ValueType(number)
    except ValueError:
        cursor.fail(f"{what}: type {number} is not a GGUF value type")


def _read_numbers(cursor: _Cursor, kind: ValueType, count: int, what: str) -> list[Any]:
    letter = NUMBER_FORMATS[kind]
    size = struct.calcsize(letter) * count
    cursor.need(size, what)
    values = memoryview(cursor.data[cursor.pos : cursor.pos + size])
    cursor.pos += size
    return list(struct.unpack(f"<{count}{letter}", values))


def _read_strings(cursor: _Cursor, count: int, what: str) -> list[str]:
    """Read an array of strings: 150,000 tokens in well under a second, so the checks are written out."""
    cursor.need(8 * count, what)
    data, pos, end = cursor.data, cursor.pos, cursor.end
    strings: list[str] = []
    for i in range(count):
        size = _U64.unpack_from(data, pos)[0] if end - pos >= 8 else end
        pos += 8
        if size > end - pos or size > MAX_STRING_BYTES:
            cursor.pos = min(pos, end)
            cursor.fail(f"{what}: string {i} runs past the end of the file or the limit of 2^30 bytes")
        strings.append(data[pos : pos + size].decode("utf-8", "surrogateescape"))
        pos += size
    cursor.pos = pos
    return strings


def _alignment(cursor: _Cursor, metadata: dict[str, Value], types: dict[str, ValueType]) -> int:
    value = metadata.get(ALIGNMENT_KEY, DEFAULT_ALIGNMENT)
    if not isinstance(value, int) or types.get(ALIGNMENT_KEY, ValueType.UINT32) is not ValueType.UINT32:
        cursor.fail(f"key {ALIGNMENT_KEY!r} must be a UINT32")
    if value == 0 or value & (value - 1):
        cursor.fail(f"key {ALIGNMENT_KEY!r}: {value} is not a power of two")
    return value


def _read_tensor(cursor: _Cursor, index: int) -> TensorInfo:
    """Read one tensor's entry; its offset still counts from the start of the data."""
    name = cursor.name(f"the name of tensor {index}")
    if len(name.encode()) > MAX_NAME_BYTES:
        cursor.fail(f"tensor {index}: a name of {len(name.encode())} bytes is over {MAX_NAME_BYTES}")
    what = f"tensor {name!r}"
    n_dims = cursor.number(_U32, what)
    if n_dims > MAX_DIMS:
        cursor.fail(f"{what}: {n_dims} dimensions are more than {MAX_DIMS}")
    dims = [cursor.number(_I64, what) for _ in range(n_dims)]  # ggml's order: columns first
    if any(n < 0 for n in dims):
        cursor.fail(f"{what}: shape {dims} has a negative dimension")
    number = cursor.number(_I32, what)
    kind = TENSOR_TYPES.get(number)
    if kind is None:
        cursor.fail(f"{what}: type {number} is not a ggml type known to edgeq")
    columns = dims[0] if dims else 1
    if columns % kind.block_values:
        cursor.fail(f"{what}: {columns} columns are not whole {kind.name} blocks of {kind.block_values}")
    # Zeros count as ones, so that no partial product overflows; 8 is the most bytes a decoded value takes.
    if max(8, kind.block_bytes) * prod(max(n, 1) for n in dims) > _INT64_MAX:
        cursor.fail(f"{what}: shape {dims} overflows")
    nbytes = prod(dims) // kind.block_values * kind.block_bytes
    offset = cursor.number(_U64, what)
    return TensorInfo(name, kind.name, kind.id, tuple(reversed(dims)), offset, nbytes)


def _place(cursor: _Cursor, found: list[TensorInfo], start: int, alignment: int) -> dict[str, TensorInfo]:
    """Check that the tensors lie one after the other and inside the file; make offsets absolute.

    The padding after the last tensor may be missing: llama.cpp's model loader accepts that too.
    """
    tensors: dict[str, TensorInfo] = {}
    expected = 0
    for t in found:
        missing = t.nbytes - (cursor.end - start - expected)
        if t.name in tensors:
            raise FormatError(cursor.path, f"tensor {t.name!r} stands twice", _AGAIN)
        if t.offset != expected:
            problem = f"tensor {t.name!r}: offset {t.offset} is not {expected}, where it must lie"
            raise FormatError(cursor.path, problem, _AGAIN)
        if missing > 0:
            problem = f"tensor {t.name!r}: the file is truncated, {missing} bytes are missing"
            raise FormatError(cursor.path, problem, _AGAIN)
        tensors[t.name] = replace(t, offset=start + expected)
        expected += padded(t.nbytes, alignment)
    return tensors
