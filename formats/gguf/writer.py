"""GGUF files written as a stream: the header first, then each tensor's rows in any number of chunks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from math import prod
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import numpy as np
from numpy.typing import NDArray

from edgeq.formats.atomic import atomic_file
from edgeq.formats.errors import EdgeqError
from edgeq.formats.gguf.parse import TensorInfo
from edgeq.formats.gguf.serialize import default_type, header_bytes
from edgeq.formats.gguf.types import (
    ALIGNMENT_KEY,
    DEFAULT_ALIGNMENT,
    MAX_DIMS,
    MAX_NAME_BYTES,
    TENSOR_TYPES_BY_NAME,
    Typed,
    Value,
    ValueType,
    padded,
)

__all__ = ["GGUFWriter", "TensorPlan", "Typed", "ValueType"]

ARCHITECTURE_KEY = "general.architecture"
_ALIGNMENTS = [1 << n for n in range(21)]  # more would only be padding
Progress = Callable[[str, int, int], None]
Chunk = bytes | bytearray | memoryview | NDArray[np.uint8]


@dataclass(frozen=True)
class TensorPlan:
    """A tensor to be written: ``shape`` in NumPy's order (rows first, columns last), any case of the type."""

    name: str
    type_name: str
    shape: tuple[int, ...]


class GGUFWriter:
    """A GGUF version 3 file in the making; a context manager.

    The file is written under a hidden name and appears under its own when the block ends without an
    exception and every tensor is complete. Memory holds the header and the caller's chunk, nothing else.

    Args:
        path: the file to make; OutputExistsError at once when it is there and ``force`` is not given.
        architecture: general.architecture, written first; None for a file that is no model and has none.
        metadata: further keys in order: str, bool, int, float, a list of one of them, or Typed for a width
            (see ``serialize.default_type``). ``general.alignment`` is obeyed; it is 32 without.
        tensors: every tensor, in the order in which ``write_rows`` will bring them.
        progress: called after each chunk with the tensor's name, the bytes of tensor data written so far,
            and the bytes of tensor data in all.

    Raises EdgeqError for a plan that no GGUF file can hold, before anything is created.
    """

    def __init__(
        self,
        path: str | Path,
        architecture: str | None,
        metadata: Mapping[str, Value | Typed],
        tensors: Sequence[TensorPlan],
        force: bool = False,
        progress: Progress | None = None,
    ) -> None:
        self.path = Path(path)
        self._force, self._progress = force, progress
        pairs = _metadata(architecture, metadata)
        self._alignment = _alignment(pairs)
        self._tensors = lay_out(tensors, self._alignment)
        header = header_bytes(pairs, self._tensors)
        self._header = header.ljust(padded(len(header), self._alignment), b"\0")
        self._total = sum(t.nbytes for t in self._tensors)
        self._written = 0  # of tensor data, without padding
        self._index = 0  # the tensor that is being written
        self._filled = 0  # its bytes so far
        self._stack = ExitStack()
        self._file: IO[Any] | None = None

    @property
    def file_bytes(self) -> int:
        """The size of the finished file."""
        return len(self._header) + sum(padded(t.nbytes, self._alignment) for t in self._tensors)

    def planned_bytes(self, name: str) -> int:
        """The bytes that ``write_rows`` must bring for that tensor; raises EdgeqError for one not planned."""
        for tensor in self._tensors:
            if tensor.name == name:
                return tensor.nbytes
        raise EdgeqError(f"{self.path}: tensor {name!r} is not planned")

    def __enter__(self) -> Self:
        self._file = self._stack.enter_context(
            atomic_file(self.path, force=self._force, needs=self.file_bytes)
        )
        try:
            self._file.write(self._header)
        except BaseException as error:  # __exit__ will not be called: clean up here
            if not self._stack.__exit__(type(error), error, error.__traceback__):
                raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file = None
        problem = error if error is not None else self.incomplete()
        # The stack sees an incomplete file as a failure, and removes it like any other.
        self._stack.__exit__(None if problem is None else type(problem), problem, trace)
        if problem is not None and problem is not error:
            raise problem

    def incomplete(self) -> EdgeqError | None:
        """What leaving the block would raise now, or None when every tensor is complete."""
        if self._index == len(self._tensors):
            return None
        t = self._tensors[self._index]
        return EdgeqError(
            f"{self.path}: tensor {t.name!r} got {self._filled} of its {t.nbytes} bytes before the end"
        )

    def write_rows(self, name: str, chunk: Chunk) -> None:
        """Append encoded bytes to tensor ``name``, which must be the first in the plan that is not full.

        Raises EdgeqError for a tensor out of turn and for more bytes than its type and shape make.
        """
        if self._file is None:
            raise EdgeqError(f"{self.path}: write_rows outside the with block")
        if self._index == len(self._tensors):
            raise EdgeqError(f"{self.path}: tensor {name!r} after the last of the plan")
        tensor = self._tensors[self._index]
        if name != tensor.name:
            raise EdgeqError(f"{self.path}: tensor {name!r} out of turn; {tensor.name!r} comes next")
        view = _as_bytes(chunk, name)
        if self._filled + view.nbytes > tensor.nbytes:
            got = self._filled + view.nbytes
            raise EdgeqError(
                f"{self.path}: tensor {name!r} got {got} bytes; {tensor.type_name} "
                f"{list(tensor.shape)} has {tensor.nbytes}"
            )
        self._file.write(view)
        self._filled += view.nbytes
        self._written += view.nbytes
        if self._filled == tensor.nbytes:
            self._file.write(bytes(padded(tensor.nbytes, self._alignment) - tensor.nbytes))
            self._index, self._filled = self._index + 1, 0
        if self._progress is not None:
            self._progress(name, self._written, self._total)


def _as_bytes(chunk: Chunk, name: str) -> memoryview:
    if not isinstance(chunk, np.ndarray):
        return memoryview(chunk).cast("B")
    if chunk.dtype != np.uint8:
        raise EdgeqError(f"tensor {name!r}: a chunk must be bytes or uint8, not {chunk.dtype}")
    return np.ascontiguousarray(chunk).reshape(-1).data


def _metadata(architecture: str | None, metadata: Mapping[str, Value | Typed]) -> dict[str, Value | Typed]:
    given = metadata.get(ARCHITECTURE_KEY, architecture)
    if (given.value if isinstance(given, Typed) else given) != architecture:
        raise EdgeqError(f"metadata key {ARCHITECTURE_KEY!r} says {given!r}, not {architecture!r}")
    if not all(metadata):
        raise EdgeqError("a metadata key is empty")
    if architecture is None:
        return dict(metadata)
    return {ARCHITECTURE_KEY: architecture, **metadata}


def _alignment(pairs: Mapping[str, Value | Typed]) -> int:
    given = pairs.get(ALIGNMENT_KEY, DEFAULT_ALIGNMENT)
    typed = given if isinstance(given, Typed) else Typed(given, default_type(ALIGNMENT_KEY, given))
    value = typed.value
    if typed.type is not ValueType.UINT32 or not isinstance(value, int) or value not in _ALIGNMENTS:
        raise EdgeqError(
            f"metadata key {ALIGNMENT_KEY!r}: {value!r} is not a power of two up to 2^20, UINT32"
        )
    return value


def lay_out(plans: Sequence[TensorPlan], alignment: int) -> list[TensorInfo]:
    """Give every tensor its place, counted from the start of the data; raises EdgeqError."""
    tensors: list[TensorInfo] = []
    seen: set[str] = set()
    offset = 0
    for plan in plans:
        kind = TENSOR_TYPES_BY_NAME.get(plan.type_name.upper())
        if kind is None:
            raise EdgeqError(f"tensor {plan.name!r}: {plan.type_name!r} is not a ggml type")
        if plan.name in seen:
            raise EdgeqError(f"tensor {plan.name!r} is planned twice")
        if not 0 < len(plan.name.encode()) <= MAX_NAME_BYTES:
            raise EdgeqError(f"tensor {plan.name!r}: a name must have 1 to {MAX_NAME_BYTES} bytes")
        if not 1 <= len(plan.shape) <= MAX_DIMS or min(plan.shape) < 1:
            raise EdgeqError(
                f"tensor {plan.name!r}: shape {list(plan.shape)} is not 1 to {MAX_DIMS} positive sizes"
            )
        if plan.shape[-1] % kind.block_values:
            raise EdgeqError(
                f"tensor {plan.name!r}: {plan.shape[-1]} columns are not whole {kind.name} blocks "
                f"of {kind.block_values}"
            )
        nbytes = prod(plan.shape) // kind.block_values * kind.block_bytes
        tensors.append(TensorInfo(plan.name, kind.name, kind.id, tuple(plan.shape), offset, nbytes))
        seen.add(plan.name)
        offset += padded(nbytes, alignment)
    return tensors
