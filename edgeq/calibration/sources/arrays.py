"""Arrays: ``.npz`` files whose entries are named as the inputs, ``.npy`` files for graphs with one input."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from edgeq.calibration.inputs import Arrays, Input, checked
from edgeq.calibration.sources import Samples, Want, source
from edgeq.errors import InputError

_ROWS = 16  # of an array that holds many samples, so many are run at once


@source
def arrays(path: Path, want: Want) -> Samples | None:
    """A ``.npz`` or ``.npy`` file or a folder of them; an array of many samples is cut along its first axis."""
    kinds = (".npz", ".npy")
    files = sorted(file for file in path.iterdir() if file.suffix in kinds) if path.is_dir() else [path]
    if not files or files[0].suffix not in kinds:
        return None

    def iterate() -> Iterator[Arrays]:
        for file in files:
            for feeds in _rows(_read(file, want.inputs), want.inputs):
                yield checked(feeds, want.inputs, str(file))

    return Samples(str(path), len(files), iterate)


def _read(file: Path, inputs: list[Input] | object) -> Arrays:
    assert isinstance(inputs, list | tuple)
    try:
        if file.suffix == ".npz":
            return read_npz(file)
        if len(inputs) != 1:
            names = ", ".join(entry.name for entry in inputs)
            raise InputError(
                f"{file}: the model has the inputs {names}; give .npz files with arrays of these names"
            )
        return {inputs[0].name: np.load(file, mmap_mode="r", allow_pickle=False)}
    except (OSError, ValueError, zipfile.BadZipFile, EOFError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{file}: is no readable array file ({reason}); write it with numpy.savez") from None


def read_npz(file: Path) -> Arrays:
    """The arrays of a ``.npz`` file by name; whatever is wrong with it raises some exception, and allocates little."""
    with zipfile.ZipFile(file) as archive:
        return {info.filename.removesuffix(".npy"): _member(archive, info) for info in archive.infolist()}


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> NDArray[np.generic]:
    """One array; its header is compared with its size before anything of that size is made."""
    with archive.open(info) as member:
        shape, fortran, dtype = _header(member)
        nbytes = math.prod(shape) * dtype.itemsize
        if dtype.hasobject or info.file_size - member.tell() != nbytes:
            raise ValueError(f"{info.filename} has not the bytes of its shape {list(shape)}")
        data = np.frombuffer(member.read(nbytes), dtype)
    return data.reshape(shape[::-1]).T if fortran else data.reshape(shape)


def _header(member: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[np.generic]]:
    version = npy.read_magic(member)
    if version == (1, 0):
        return npy.read_array_header_1_0(member)
    if version == (2, 0):
        return npy.read_array_header_2_0(member)
    raise ValueError(f"is of .npy version {version}")


def _rows(feeds: Arrays, inputs: list[Input] | object) -> Iterator[Arrays]:
    """The feeds as they are, or in pieces where every array holds the same number of samples."""
    assert isinstance(inputs, list | tuple)
    lengths = {array.shape[0] if array.ndim else 0 for array in feeds.values()}
    batches = {entry.shape[0] if entry.shape else None for entry in inputs}
    length = lengths.pop() if len(lengths) == 1 else 0
    batch = batches.pop() if len(batches) == 1 else 0
    if length <= 1 or batch == 0 or (isinstance(batch, int) and (batch >= length or length % batch)):
        yield feeds
        return
    step = batch if isinstance(batch, int) else _ROWS
    for start in range(0, length, step):
        yield {name: array[start : start + step] for name, array in feeds.items()}
