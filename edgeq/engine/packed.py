"""The weights of a GGUF file as programs multiply them: packed for the instruction set, or floats on the map."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from edgeq.engine.prepacked import packed_weights
from edgeq.engine.steps import NotRecordableError
from edgeq.engine.weights import hugging_face_rows
from edgeq.families import TensorSpec
from edgeq.formats.gguf.reader import GGUFFile
from edgeq.kernels_cpu import products
from edgeq.kernels_cpu.decode import decode
from edgeq.kernels_cpu.isa import Isa
from edgeq.kernels_cpu.products import Packed

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]
FLOAT_TYPES = ("F32", "F16", "BF16")
_HEAD, _TABLES = "output.weight", ("token_embd.weight", "position_embd.weight")


class FloatMatrix(NamedTuple):
    """Rows of float weights as the file has them: uint8 ``[N, row_bytes]``."""

    rows: Bytes
    type_name: str
    columns: int


class StepWeights(Protocol):
    """What programs are recorded with: a file's own weights (``PackedWeights``), or floats."""

    isa: Isa

    def has(self, name: str) -> bool:
        """Whether the model has that tensor."""

    def columns(self, name: str) -> int:
        """Columns of a matrix."""

    def vector(self, name: str) -> Floats:
        """A one-dimensional tensor."""

    def picked(self, name: str, ids: NDArray[np.int64]) -> Floats:
        """Some rows of a matrix: float32 ``[len(ids), columns]``."""

    def operand(self, name: str) -> Packed | FloatMatrix:
        """A matrix as products take it."""


class PackedWeights:
    """Tensors by GGUF name, rows in Hugging Face order. All matrices that products do not take as they are in the file
    are packed at once, one after the other.

    ``keep`` writes the packed weights to the user's cache, unless they are there. Raises NotRecordableError for a type
    that has no product, EdgeqError as ``prepacked`` does.
    """

    def __init__(self, file: GGUFFile, specs: Mapping[str, TensorSpec], isa: Isa, keep: bool = False) -> None:
        self.file, self.specs, self.isa = file, specs, isa
        self._vectors: dict[str, Floats] = {}
        self._floats: dict[str, FloatMatrix] = {}
        wanted = {name: self._order(name) for name in self._multiplied() if not self._is_float(name)}
        unknown = next((name for name in wanted if not products.supports(file.info(name).type_name)), None)
        if unknown is not None:
            raise NotRecordableError(
                f"tensor {unknown} is {file.info(unknown).type_name}, which has no product"
            )
        own = {name: self._as_they_are(name) for name, order in wanted.items() if order is None}
        taken = {name: packed for name, packed in own.items() if packed is not None}
        packed = {name: order for name, order in wanted.items() if name not in taken}
        self._packed = taken | packed_weights(file, packed, isa, keep)

    def has(self, name: str) -> bool:
        """Whether the model has that tensor."""
        return name in self.specs

    def columns(self, name: str) -> int:
        """Columns of a matrix."""
        return self.file.info(name).columns

    def vector(self, name: str) -> Floats:
        """A one-dimensional tensor."""
        if name not in self._vectors:
            values, order = self.file.decode(name).reshape(-1), self._order(name)
            self._vectors[name] = values if order is None else values[order]
        return self._vectors[name]

    def picked(self, name: str, ids: NDArray[np.int64]) -> Floats:
        """Some rows of a matrix, read from the map: float32 ``[len(ids), columns]``."""
        info = self.file.info(name)
        return decode(info.type_name, self.file.rows(name)[ids], info.columns, self.isa)

    def operand(self, name: str) -> Packed | FloatMatrix:
        """A matrix as products take it."""
        if name in self._packed:
            return self._packed[name]
        if name not in self._floats:
            info, order, rows = self.file.info(name), self._order(name), self.file.rows(name)
            if order is not None:
                rows = rows[order]
                self.file.release(name)
            self._floats[name] = FloatMatrix(rows, info.type_name, info.columns)
        return self._floats[name]

    def _multiplied(self) -> list[str]:
        """The matrices that are multiplied with, which a table is only where it is the head as well."""
        tables = _TABLES if _HEAD in self.specs else _TABLES[1:]
        return [name for name, spec in self.specs.items() if len(spec.shape) > 1 and name not in tables]

    def _as_they_are(self, name: str) -> Packed | None:
        """The matrix on the file's map, if products take its rows so."""
        info = self.file.info(name)
        if len(info.shape) != 2:
            return None
        return products.unpacked(info.type_name, self.file.rows(name), info.columns, self.isa)

    def _is_float(self, name: str) -> bool:
        return self.file.info(name).type_name in FLOAT_TYPES

    def _order(self, name: str) -> NDArray[np.int64] | None:
        spec = self.specs[name]  # of a matrix, or of a vector that is added to its rows
        return hugging_face_rows(spec.shape[0], spec.rope_heads) if spec.rope_heads else None
