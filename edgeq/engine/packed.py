"""The weights of a GGUF file as programs multiply them: packed for the instruction set, or floats on the map."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgeq.engine.weights import hugging_face_rows
from edgeq.families import TensorSpec
from edgeq.formats.gguf.reader import GGUFFile
from edgeq.kernels_cpu import products
from edgeq.kernels_cpu.decode import decode
from edgeq.kernels_cpu.isa import Isa
from edgeq.kernels_cpu.products import Packed
from edgeq.kernels_cpu.registry import kernels

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]
FLOAT_TYPES = ("F32", "F16", "BF16")


class FloatMatrix(NamedTuple):
    """Rows of float weights as the file has them: uint8 ``[N, row_bytes]``."""

    rows: Bytes
    type_name: str
    columns: int


class PackedWeights:
    """Tensors by GGUF name, rows in Hugging Face order; a matrix is packed when it is first asked for."""

    def __init__(self, file: GGUFFile, specs: dict[str, TensorSpec], isa: Isa) -> None:
        self.file, self.specs, self.isa = file, specs, isa
        self._vectors: dict[str, Floats] = {}
        self._operands: dict[str, Packed | FloatMatrix | None] = {}

    def has(self, name: str) -> bool:
        """Whether the model has that tensor."""
        return name in self.specs

    def columns(self, name: str) -> int:
        """Columns of a matrix."""
        return self.file.info(name).columns

    def vector(self, name: str) -> Floats:
        """A one-dimensional tensor."""
        if name not in self._vectors:
            values = self.file.decode(name).reshape(-1)
            heads = self.specs[name].rope_heads
            self._vectors[name] = values[hugging_face_rows(len(values), heads)] if heads else values
        return self._vectors[name]

    def picked(self, name: str, ids: NDArray[np.int64]) -> Floats:
        """Some rows of a matrix, read from the map: float32 ``[len(ids), columns]``."""
        info = self.file.info(name)
        return decode(info.type_name, self.file.rows(name)[ids], info.columns, self.isa)

    def operand(self, name: str) -> Packed | FloatMatrix | None:
        """A matrix as products take it; None where there is no product for its type."""
        if name not in self._operands:
            self._operands[name] = self._made(name)
        return self._operands[name]

    def _made(self, name: str) -> Packed | FloatMatrix | None:
        info, heads = self.file.info(name), self.specs[name].rope_heads
        order = hugging_face_rows(info.n_rows, heads) if heads else None
        if info.type_name in FLOAT_TYPES:
            rows = self.file.rows(name)
            return FloatMatrix(rows if order is None else rows[order], info.type_name, info.columns)
        if kernels(products.__name__, info.type_name) is None:
            return None
        return packed(self.file, name, order, self.isa)


def packed(file: GGUFFile, name: str, order: NDArray[np.int64] | None, isa: Isa) -> Packed:
    """A tensor packed, its rows in that order; its pages are given back to the system."""
    info, rows = file.info(name), file.rows(name)
    done = products.pack(info.type_name, rows if order is None else rows[order], info.columns, isa)
    file.release(name)
    return done
