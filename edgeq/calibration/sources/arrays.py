"""Arrays: ``.npz`` files whose entries are named as the inputs, ``.npy`` files for graphs with one input."""

from __future__ import annotations

import io
import math
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from edgeq.calibration.inputs import Arrays, Input, check_names, checked
from edgeq.calibration.sources import Samples, Want, is_plain, source
from edgeq.errors import InputError

_ROWS = 16  # of an array that holds many samples, so many are run at once
_HEADER_BYTES = 10_000  # at most, as NumPy has it; it writes 118
_MOST_BYTES = 1 << 30  # of what is run at once
_LONGEST = 1 << 48  # an axis
_KINDS = (".npz", ".npy")
# What zipfile raises of a broken archive, an encrypted one, or one that is compressed in a way that it does not know.
_BROKEN = (OSError, ValueError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error)


@source
def arrays(path: Path, want: Want) -> Samples | None:
    """A ``.npz`` or ``.npy`` file or a folder of them; an array of many samples is cut along its first axis.

    What is not run at once is not in memory at once either.
    """
    found = sorted(path.iterdir()) if path.is_dir() else [path]
    files = [file for file in found if file.suffix.lower() in _KINDS and is_plain(file)]
    if not files:
        return None

    def iterate() -> Iterator[Arrays]:
        for file in files:
            try:
                with _opened(file, want.inputs) as stored:
                    for feeds in _rows(stored, want.inputs, file):
                        yield checked(feeds, want.inputs, str(file))
            except _BROKEN as error:
                raise InputError(
                    f"{file}: is no readable array file ({_reason(error)}); write it with numpy.savez"
                ) from None

    return Samples(str(path), len(files), iterate)


def read_npz(file: Path) -> Arrays:
    """The arrays of a ``.npz`` file by name; whatever is wrong with it raises some exception, and allocates little."""
    with ExitStack() as stack:
        return {name: stored.take(stored.length) for name, stored in _members(file, stack).items()}


def _reason(error: BaseException) -> str:
    lines = str(error).splitlines()
    return lines[0][:200] if lines else type(error).__name__


@dataclass(frozen=True)
class _Stored:
    """An array in a file, of which the next rows can be read."""

    name: str
    stream: IO[bytes]
    shape: tuple[int, ...]
    dtype: np.dtype[np.generic]
    fortran: bool

    @classmethod
    def open(cls, name: str, stream: IO[bytes], size: int) -> _Stored:
        """Read the header; raises ValueError where it and the stream's ``size`` in bytes do not go together."""
        (shape, fortran, dtype), start = _header(name, stream)
        if dtype.hasobject:
            raise ValueError(f"{name} holds Python objects, not numbers")
        if dtype.kind not in "biufc":
            raise ValueError(f"{name} is {dtype}, not of numbers")
        if not all(0 <= length < _LONGEST for length in shape):
            raise ValueError(f"{name} has an impossible shape")
        if size - start != math.prod(shape) * dtype.itemsize:
            raise ValueError(f"{name} has not the bytes of its shape {list(shape)}")
        return cls(name, stream, shape, dtype, fortran)

    @property
    def length(self) -> int:
        """Rows, 0 of a single number."""
        return self.shape[0] if self.shape else 0

    def nbytes(self, rows: int) -> int:
        """Of so many rows."""
        return math.prod((rows, *self.shape[1:]) if self.shape else ()) * self.dtype.itemsize

    def take(self, rows: int) -> NDArray[np.generic]:
        """The next rows, or all where they are as many; raises ValueError where the stream ends before."""
        shape = (rows, *self.shape[1:]) if self.shape else ()
        content = self.stream.read(self.nbytes(rows))
        if len(content) != self.nbytes(rows):
            raise ValueError(f"{self.name} ends before its last row")
        data = np.frombuffer(content, self.dtype)
        return data.reshape(shape[::-1]).T if self.fortran else data.reshape(shape)


def _header(name: str, stream: IO[bytes]) -> tuple[tuple[tuple[int, ...], bool, np.dtype[np.generic]], int]:
    """(shape, whether in Fortran's order, type), and where the values begin. Raises ValueError."""
    version = npy.read_magic(stream)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"{name} is of .npy version {version[0]}.{version[1]}")
    width = 2 if version == (1, 0) else 4
    length = stream.read(width)
    size = int.from_bytes(length, "little")
    if size > _HEADER_BYTES:
        raise ValueError(f"the header of {name} has {size} bytes")
    header = io.BytesIO(length + stream.read(size))
    try:
        read = npy.read_array_header_1_0 if width == 2 else npy.read_array_header_2_0
        return read(header), npy.MAGIC_LEN + width + size
    except Exception:  # a Python literal: its parser raises anything, and quotes all of it
        raise ValueError(f"{name} has no .npy header") from None


@contextmanager
def _opened(file: Path, inputs: Sequence[Input]) -> Iterator[Mapping[str, _Stored]]:
    """The arrays of a file by the names of inputs; raises InputError where these are not the model's."""
    with ExitStack() as stack:
        if file.suffix.lower() == ".npz":
            yield _members(file, stack, inputs)
            return
        if len(inputs) != 1:
            names = ", ".join(entry.name for entry in inputs)
            raise InputError(
                f"{file}: the model has the inputs {names}; give .npz files with arrays of these names"
            )
        stream = stack.enter_context(file.open("rb"))
        yield {inputs[0].name: _Stored.open(inputs[0].name, stream, file.stat().st_size)}


def _members(file: Path, stack: ExitStack, inputs: Sequence[Input] | None = None) -> dict[str, _Stored]:
    """All arrays of an archive, which ``stack`` closes; with ``inputs`` their names must be these."""
    archive = stack.enter_context(zipfile.ZipFile(file))
    entries = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
    if inputs is not None:
        check_names(entries, inputs, str(file))
    found = {}
    for name, info in entries.items():
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ValueError(f"{name} is compressed in a way that NumPy does not write")
        found[name] = _Stored.open(name, stack.enter_context(archive.open(info)), info.file_size)
    return found


def _rows(stored: Mapping[str, _Stored], inputs: Sequence[Input], file: Path) -> Iterator[Arrays]:
    """All in one, or in pieces where every array holds the same number of samples. Raises InputError."""
    lengths = {one.length for one in stored.values()}
    batches = {entry.shape[0] if entry.shape else None for entry in inputs}
    length = lengths.pop() if len(lengths) == 1 else 0
    batch = batches.pop() if len(batches) == 1 else 0
    whole = length <= 1 or batch == 0 or (isinstance(batch, int) and (batch >= length or length % batch != 0))
    if whole or any(one.fortran for one in stored.values()):
        pieces = iter([{name: one.length for name, one in stored.items()}])
    else:
        step = batch if isinstance(batch, int) else _ROWS
        pieces = (dict.fromkeys(stored, min(step, length - start)) for start in range(0, length, step))
    for piece in pieces:
        for name, rows in piece.items():
            if stored[name].nbytes(rows) > _MOST_BYTES:
                raise InputError(
                    f"{file}: {name} has {stored[name].nbytes(rows) / 1e9:.1f} GB for one run of the model, more than "
                    f"{_MOST_BYTES / 1e9:.1f}; give less"
                )
        yield {name: stored[name].take(rows) for name, rows in piece.items()}
