"""GGUF files, memory-mapped: metadata as Python values, tensors as views on the map."""

from __future__ import annotations

import mmap
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from edgeq.formats.blocks import by_id
from edgeq.formats.errors import EdgeqError
from edgeq.formats.gguf.parse import Header, TensorInfo, parse_header
from edgeq.formats.gguf.types import Typed, Value, ValueType
from edgeq.formats.mapping import close_mapping, drop_pages, map_file

__all__ = ["GGUFFile", "TensorInfo"]


class GGUFFile:
    """An open GGUF file, versions 2 and 3, little-endian.

    Attributes:
        metadata: key → int, float, bool, str or list. Strings are UTF-8; bytes that are not become lone
            surrogates ("surrogateescape"), so a vocabulary survives unharmed and the writer restores them.
        metadata_types: key → ValueType; for a list, the type of its elements.
        tensors: name → TensorInfo, in the file's order.
        version, alignment: as the header states them.

    The views that ``rows`` returns stay valid after ``close``, for as long as they are kept.
    """

    def __init__(self, path: Path, mapping: mmap.mmap, header: Header) -> None:
        self.path = path
        self.version, self.alignment = header.version, header.alignment
        self.metadata: dict[str, Value] = header.metadata
        self.metadata_types: dict[str, ValueType] = header.types
        self.tensors: dict[str, TensorInfo] = header.tensors
        self._mapping = mapping
        self._bytes: NDArray[np.uint8] | None = np.frombuffer(mapping, np.uint8)

    @property
    def paths(self) -> list[Path]:
        """The files that hold the tensors."""
        return [self.path]

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """Map and check the file; raises FormatError for any breach of the format, EdgeqError if unreadable.

        A file that is cut short by another process while it is open cannot be guarded against: the system
        then ends this process with SIGBUS.
        """
        path = Path(path)
        mapping = map_file(path)
        try:
            return cls(path, mapping, parse_header(mapping, path))
        except BaseException:
            close_mapping(mapping)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._bytes = None
        close_mapping(self._mapping)

    def typed_metadata(self) -> dict[str, Typed]:
        """The metadata with their widths, ready for GGUFWriter to write them back as they were."""
        return {key: Typed(value, self.metadata_types[key]) for key, value in self.metadata.items()}

    def info(self, name: str) -> TensorInfo:
        """The tensor's entry; raises EdgeqError naming the file when there is none of that name."""
        try:
            return self.tensors[name]
        except KeyError:
            raise EdgeqError(f"{self.path}: has no tensor {name!r}") from None

    def rows(self, name: str) -> NDArray[np.uint8]:
        """The tensor's bytes, uint8 ``[n_rows, row_bytes]``: a read-only view on the map, nothing copied."""
        tensor = self.info(name)
        if self._bytes is None:
            raise EdgeqError(f"{self.path}: was closed")
        flat = self._bytes[tensor.offset : tensor.offset + tensor.nbytes]
        return flat.reshape(tensor.n_rows, tensor.row_bytes)

    def decode(self, name: str) -> NDArray[np.float32]:
        """The tensor's values, float32 in its shape, by the plain codec; raises EdgeqError without one."""
        tensor = self.info(name)
        block = by_id(tensor.type_id)
        if block is None:
            raise EdgeqError(f"{self.path}: tensor {name!r} is {tensor.type_name}, which edgeq cannot decode")
        if 0 in tensor.shape:
            return np.zeros(tensor.shape, np.float32)
        return block.decode(self.rows(name), tensor.columns).reshape(tensor.shape)

    def release(self, name: str, first: int = 0, last: int | None = None) -> None:
        """Let the system drop the pages of rows first..last from memory (all, if not said otherwise).

        They are read again when next needed: whoever still works on them waits for that.
        """
        tensor = self.info(name)
        count = (tensor.n_rows if last is None else last) - first
        if self._bytes is not None:
            drop_pages(self._mapping, tensor.offset + first * tensor.row_bytes, count * tensor.row_bytes)
