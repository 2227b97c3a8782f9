"""Packed weights of a GGUF file: packed now, or mapped from a file in which an earlier start saved them.

That file is a safetensors file of one byte tensor for each matrix, aligned to 64. It is named by a key, and
taken only where the key, the tensors' names and their sizes are those expected; else it is written anew. Its
bytes need no more trust than that: kernels read numbers from them, no addresses and no sizes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgeq import user_cache
from edgeq.errors import EdgeqError, FormatError
from edgeq.formats.atomic import atomic_file
from edgeq.formats.gguf.reader import GGUFFile
from edgeq.kernels_cpu import products
from edgeq.kernels_cpu.isa import Isa
from edgeq.kernels_cpu.products import Packed
from edgeq.kernels_cpu.products.layout import VERSION

Order = NDArray[np.int64] | None

_SUFFIX = ".packed.safetensors"
_SAMPLE_BYTES = 4096


class _Matrix(NamedTuple):
    """A tensor to be packed: a matrix, or a stack of them where its shape has three axes."""

    name: str
    type_name: str
    order: Order
    stacked: int
    n: int
    columns: int
    shape: tuple[int, int, int]  # of the packed data

    @property
    def padded_bytes(self) -> int:
        return -(-prod(self.shape) // products.ALIGNMENT) * products.ALIGNMENT


def packed_weights(
    file: GGUFFile, wanted: Mapping[str, Order], isa: Isa, cache: bool = False
) -> dict[str, Packed]:
    """The wanted tensors, packed for an instruction set, by name.

    A value of ``wanted`` is the order of a tensor's rows (``rows[order[i]]`` is row i), or None. They are those of
    ``mapped_weights``; where there are none, tensors are packed one at a time, and the source's pages are let go.
    With ``cache`` they are packed into a file, and that is mapped. Raises EdgeqError for a tensor that is missing
    or has no integer product, and where that file cannot be written.
    """
    found = mapped_weights(file, wanted, isa)
    if found is not None:
        return found
    matrices = _matrices(file, wanted, isa)
    if not cache:
        return {matrix.name: _pack(file, matrix, isa) for matrix in matrices}
    key = _key(file, matrices, isa)
    path = _path(file, key, user_cache.made_folder())
    _write(path, file, matrices, isa, key)
    user_cache.prune(_SUFFIX, path)
    found = _mapped(path, matrices, isa, key)
    if found is None:
        raise EdgeqError(f"{path}: changed while it was written; try again")
    return found


def mapped_weights(file: GGUFFile, wanted: Mapping[str, Order], isa: Isa) -> dict[str, Packed] | None:
    """The same from the file in which they were kept; None where there is none that fits. Raises EdgeqError as
    ``packed_weights`` does."""
    folder = user_cache.folder()
    if not any(folder.glob(f"*{_SUFFIX}")):  # most users keep none: the key need not be made
        return None
    matrices = _matrices(file, wanted, isa)
    key = _key(file, matrices, isa)
    path = _path(file, key, folder)
    found = _mapped(path, matrices, isa, key)
    if found is not None:
        user_cache.used(path)
    return found


def _path(file: GGUFFile, key: str, folder: Path) -> Path:
    return folder / f"{file.path.stem}-{key[:20]}{_SUFFIX}"


def _matrices(file: GGUFFile, wanted: Mapping[str, Order], isa: Isa) -> list[_Matrix]:
    return [_matrix(file, name, order, isa) for name, order in wanted.items()]


def _matrix(file: GGUFFile, name: str, order: Order, isa: Isa) -> _Matrix:
    info = file.info(name)
    if len(info.shape) not in (2, 3):
        raise FormatError(file.path, f"tensor {name} has shape {list(info.shape)}, and is no matrix")
    stacked, (n, columns) = prod(info.shape[:-2]), info.shape[-2:]
    shape = products.packed_shape(products.layout_for(info.type_name, isa), n, columns, stacked)
    return _Matrix(name, info.type_name, order, stacked, n, columns, shape)


def _pack(file: GGUFFile, matrix: _Matrix, isa: Isa) -> Packed:
    _, type_name, order, stacked, _, columns, _ = matrix
    packed = products.pack(type_name, file.rows(matrix.name), columns, isa, order, stacked)
    file.release(matrix.name)
    return packed


def _key(file: GGUFFile, matrices: Sequence[_Matrix], isa: Isa) -> str:
    """Names the weights and how they are packed, hexadecimal.

    Not of all bytes: reading them would take as long as packing them. Any program that writes to a file sets
    its time, so a size and a time in nanoseconds tell that it is the same; and where a copy keeps the time, three
    pieces of each tensor, start, middle and end, tell one quantization from another.
    """
    digest = hashlib.sha256()
    files = [(path.stat().st_size, path.stat().st_mtime_ns) for path in file.paths]
    what = [VERSION, isa.name, sorted(isa.features), files]
    tensors = [(m.name, m.type_name, m.stacked, m.n, m.columns, m.order is not None) for m in matrices]
    digest.update(json.dumps([what, tensors]).encode(errors="surrogateescape"))
    for matrix in matrices:
        flat = file.rows(matrix.name).reshape(-1)
        for start in (0, flat.size // 2, max(0, flat.size - _SAMPLE_BYTES)):
            digest.update(flat[start : start + _SAMPLE_BYTES].tobytes())
        if matrix.order is not None:
            digest.update(matrix.order.astype("<i8").tobytes())
    return digest.hexdigest()


def _metadata(key: str) -> dict[str, str]:
    return {"format": "edgeq packed weights", "key": key}


def _mapped(path: Path, matrices: Sequence[_Matrix], isa: Isa, key: str) -> dict[str, Packed] | None:
    """What the file holds; None where it is missing, damaged or another one."""
    from edgeq.formats.checkpoint.safetensors_file import SafetensorsFile  # needs more than NumPy and Numba

    try:
        stored = SafetensorsFile(path)
    except EdgeqError:
        return None
    sizes = {matrix.name: matrix.padded_bytes for matrix in matrices}
    found = {name: tensor.nbytes for name, tensor in stored.tensors.items()}
    aligned = all(tensor.start % products.ALIGNMENT == 0 for tensor in stored.tensors.values())
    if stored.metadata != _metadata(key) or found != sizes or not aligned:
        stored.close()
        return None
    packed = {}
    for name, type_name, _, stacked, n, columns, shape in matrices:
        data = stored.view(stored.tensors[name])[: prod(shape)].reshape(shape)
        packed[name] = Packed(data, n, columns, products.layout_for(type_name, isa), isa, stacked)
    return packed


def _write(path: Path, file: GGUFFile, matrices: Sequence[_Matrix], isa: Isa, key: str) -> None:
    """Pack into the file, one tensor after the other; it appears when it is whole."""
    header = _header(matrices, key)
    size = len(header) + sum(matrix.padded_bytes for matrix in matrices)
    with atomic_file(path, force=True, needs=size) as out:
        out.write(header)
        for matrix in matrices:
            data = _pack(file, matrix, isa).data
            out.write(data.data)
            out.write(bytes(matrix.padded_bytes - data.nbytes))


def _header(matrices: Sequence[_Matrix], key: str) -> bytes:
    """Filled up with spaces, so that the data begin at a multiple of the alignment."""
    entries: dict[str, object] = {"__metadata__": _metadata(key)}
    start = 0
    for matrix in matrices:
        end = start + matrix.padded_bytes
        entries[matrix.name] = {"dtype": "U8", "shape": [end - start], "data_offsets": [start, end]}
        start = end
    text = json.dumps(entries).encode()
    text += b" " * (-(8 + len(text)) % products.ALIGNMENT)
    return len(text).to_bytes(8, "little") + text
