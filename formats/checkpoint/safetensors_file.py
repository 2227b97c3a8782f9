"""One .safetensors file: its header checked field by field, its tensors mapped.

Source: the specification in the README of huggingface/safetensors, and ``Metadata::validate`` in
safetensors/src/tensor.rs. Layout: 8 bytes of little-endian header length, a JSON object
name → {dtype, shape, data_offsets}, then the data, without holes.
"""

from __future__ import annotations

import json
import mmap
import struct
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from edgeq.formats.errors import FormatError
from edgeq.formats.mapping import close_mapping, drop_pages, map_file

MAX_HEADER_BYTES = 100_000_000  # the reference implementation's limit
_AGAIN = "download it again"

DTYPES: dict[str, np.dtype[Any]] = {
    name: np.dtype(kind)
    for name, kind in {
        "BOOL": np.bool_,
        "U8": "<u1",
        "I8": "<i1",
        "U16": "<u2",
        "I16": "<i2",
        "U32": "<u4",
        "I32": "<i4",
        "U64": "<u8",
        "I64": "<i8",
        "F16": "<f2",
        "F32": "<f4",
        "F64": "<f8",
        "BF16": ml_dtypes.bfloat16,
        "F8_E4M3": ml_dtypes.float8_e4m3fn,
        "F8_E5M2": ml_dtypes.float8_e5m2,
        "F8_E8M0": ml_dtypes.float8_e8m0fnu,
    }.items()
}


@dataclass(frozen=True)
class StoredTensor:
    """A tensor's entry; ``start`` counts from the start of the file."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    start: int
    nbytes: int


class SafetensorsFile:
    """A mapped file; raises FormatError.

    Attributes:
        tensors: name → StoredTensor, in the header's order.
        metadata: the header's own strings, ``__metadata__``.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._mapping = map_file(path)
        try:
            self.tensors, self.metadata = _parse(self._mapping, path)
        except BaseException:
            close_mapping(self._mapping)
            raise
        self._bytes: NDArray[np.uint8] | None = np.frombuffer(self._mapping, np.uint8)

    def read(self, tensor: StoredTensor, first: int, count: int) -> NDArray[Any]:
        """A copy of ``count`` values from value ``first`` on, flat, in the stored dtype."""
        if self._bytes is None:
            raise FormatError(self.path, "was closed")
        start = tensor.start + first * tensor.dtype.itemsize
        # Copied before it is viewed: the data of a tensor need not be aligned to its dtype.
        return self._bytes[start : start + count * tensor.dtype.itemsize].copy().view(tensor.dtype)

    def view(self, tensor: StoredTensor) -> NDArray[np.uint8]:
        """A tensor's bytes as they are mapped, read-only; they stay valid after ``close``."""
        if self._bytes is None:
            raise FormatError(self.path, "was closed")
        return self._bytes[tensor.start : tensor.start + tensor.nbytes]

    def read_columns(self, tensor: StoredTensor, first: int, last: int) -> NDArray[Any]:
        """A copy of some columns of a matrix, ``[rows, last - first]``; no other bytes are touched."""
        if self._bytes is None:
            raise FormatError(self.path, "was closed")
        size = tensor.dtype.itemsize
        stored = self._bytes[tensor.start : tensor.start + tensor.nbytes]
        columns = stored.reshape(tensor.shape[0], tensor.shape[1] * size)[:, first * size : last * size]
        return columns.copy().view(tensor.dtype)

    def release(self, tensor: StoredTensor) -> None:
        drop_pages(self._mapping, tensor.start, tensor.nbytes)

    def close(self) -> None:
        self._bytes = None
        close_mapping(self._mapping)


def _parse(data: mmap.mmap, path: Path) -> tuple[dict[str, StoredTensor], dict[str, str]]:
    if len(data) < 8:
        raise FormatError(path, f"{len(data)} bytes are too few for a header", _AGAIN)
    (size,) = struct.unpack_from("<Q", data)
    if size > MAX_HEADER_BYTES:
        raise FormatError(path, f"header length {size} is over the limit of {MAX_HEADER_BYTES} bytes", _AGAIN)
    if size > len(data) - 8:
        raise FormatError(
            path, f"header length {size}, but the file has {len(data) - 8} bytes after it", _AGAIN
        )
    header = _json_object(data[8 : 8 + size], path)
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise FormatError(path, "__metadata__ is not an object of strings")
    start = 8 + size
    tensors = {name: _entry(name, entry, start, path) for name, entry in header.items()}
    _check_layout(tensors, start, len(data), path)
    return tensors, metadata


def _json_object(raw: bytes, path: Path) -> dict[str, Any]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in pairs:
            if key in found:
                raise FormatError(path, f"header: key {key!r} stands twice")
            found[key] = value
        return found

    try:
        header = json.loads(raw.decode("utf-8"), object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:  # JSON, UTF-8, numbers of too many digits; nesting
        raise FormatError(path, f"header is not JSON ({error})", _AGAIN) from None
    if not isinstance(header, dict):
        raise FormatError(path, "header is not a JSON object", _AGAIN)
    return header


def _entry(name: str, entry: Any, data_start: int, path: Path) -> StoredTensor:
    """Check one tensor's fields; whether the tensors fill the file is checked for all together."""
    what = f"tensor {name!r}"
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise FormatError(path, f"{what}: must have exactly dtype, shape and data_offsets")
    dtype = DTYPES.get(entry["dtype"]) if isinstance(entry["dtype"], str) else None
    if dtype is None:
        raise FormatError(path, f"{what}: dtype {entry['dtype']!r} is not one of {', '.join(DTYPES)}")
    shape, offsets = entry["shape"], entry["data_offsets"]
    if not _are_sizes(shape):
        raise FormatError(path, f"{what}: shape {shape!r} is not a list of sizes")
    if not _are_sizes(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise FormatError(path, f"{what}: data_offsets {offsets!r} is not a begin and an end")
    nbytes = offsets[1] - offsets[0]
    if prod(shape) * dtype.itemsize != nbytes:
        raise FormatError(
            path, f"{what}: data_offsets {offsets!r} hold {nbytes} bytes, {entry['dtype']} {shape} has "
            f"{prod(shape) * dtype.itemsize}"
        )  # fmt: skip
    return StoredTensor(name, dtype, tuple(shape), data_start + offsets[0], nbytes)


def _are_sizes(values: Any) -> bool:
    return isinstance(values, list) and all(type(v) is int and 0 <= v < 1 << 63 for v in values)


def _check_layout(tensors: dict[str, StoredTensor], start: int, end: int, path: Path) -> None:
    """The tensors must follow one another from the start of the data to the end of the file."""
    for t in sorted(tensors.values(), key=lambda t: (t.start, t.nbytes)):
        if t.start + t.nbytes > end:
            missing = t.start + t.nbytes - end
            raise FormatError(
                path, f"tensor {t.name!r}: the file is truncated, {missing} bytes are missing", _AGAIN
            )
        if t.start < start:
            raise FormatError(path, f"tensor {t.name!r}: data_offsets overlap those of another tensor")
        if t.start > start:
            raise FormatError(
                path, f"tensor {t.name!r}: data_offsets leave a hole of {t.start - start} bytes"
            )
        start = t.start + t.nbytes
    if start != end:
        raise FormatError(path, f"{end - start} bytes after the last tensor belong to none", _AGAIN)
