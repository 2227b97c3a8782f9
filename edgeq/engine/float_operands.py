"""A model's weights as programs multiply them, in floats, whatever they are stored as."""

from __future__ import annotations

import copy
from math import prod
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from edgeq.devices.detect import instruction_set
from edgeq.engine.fast import FastModel
from edgeq.engine.packed import FloatMatrix
from edgeq.kernels_cpu.cached import Cached
from edgeq.kernels_cpu.decode import decode
from edgeq.kernels_cpu.isa import Isa
from edgeq.source import ModelSource

Floats = NDArray[np.float32]
# The narrow types that products take, by the name that they have for them.
_NARROW: dict[str, Any] = {"BF16": ml_dtypes.bfloat16, "F16": np.float16}
_PANEL_VALUES = 4 << 20  # rows of a matrix are read this many values at a time


class FloatOperands:
    """Tensors by GGUF name, rows in Hugging Face order, read when first wanted and kept.

    A matrix is kept in 16 bits where these hold its very values, else as float32: a checkpoint takes as much memory as
    its file, a quantized one four bytes a weight. Raises EdgeqError as the source does.
    """

    def __init__(self, source: ModelSource, isa: Isa) -> None:
        self.source, self.isa = source, isa
        self._vectors: dict[str, Floats] = {}
        self._matrices: dict[str, FloatMatrix] = {}

    def replaced(self, name: str, values: Floats) -> FloatOperands:
        """The same with other values, ``[N, columns]``, of one matrix; the others are shared."""
        own = copy.copy(self)
        self.operand(name)  # read now, so that what is shared has it
        own._matrices = self._matrices | {name: _matrix(values)}
        return own

    def has(self, name: str) -> bool:
        """Whether the model has that tensor."""
        return self.source.has(name)

    def columns(self, name: str) -> int:
        """Columns of a matrix."""
        return self.source.shape(name)[-1]

    def vector(self, name: str) -> Floats:
        """A one-dimensional tensor."""
        if name not in self._vectors:
            self._vectors[name] = self.source.array(name).reshape(-1)
        return self._vectors[name]

    def picked(self, name: str, ids: NDArray[np.int64]) -> Floats:
        """Some rows of a matrix: float32 ``[len(ids), columns]``."""
        matrix = self.operand(name)
        return decode(matrix.type_name, np.ascontiguousarray(matrix.rows[ids]), matrix.columns, self.isa)

    def operand(self, name: str) -> FloatMatrix:
        """A matrix, or a stack of them one below the other, as products take it."""
        if name not in self._matrices:
            self._matrices[name] = _matrix(read_rows(self.source, name))
            self.source.release(name)
        return self._matrices[name]


def read_rows(source: ModelSource, name: str) -> Floats:
    """A tensor's rows, those of a stack's matrices one after the other: float32 ``[rows, columns]``."""
    shape = source.shape(name)
    rows, columns = prod(shape[:-1]), shape[-1]
    values, step = np.empty((rows, columns), np.float32), max(1, _PANEL_VALUES // columns)
    for start in range(0, rows, step):
        values[start : start + step] = source.rows(name, start, min(rows, start + step))
    return values


def _matrix(values: Floats) -> FloatMatrix:
    for type_name, dtype in _NARROW.items():
        with np.errstate(over="ignore"):  # what float16 cannot hold is not equal
            narrow = values.astype(dtype)
        if np.array_equal(narrow.astype(np.float32), values):
            return FloatMatrix(narrow.view(np.uint8), type_name, values.shape[1])
    return FloatMatrix(np.ascontiguousarray(values).view(np.uint8), "F32", values.shape[1])


def float_model(source: ModelSource, operands: FloatOperands | None = None) -> FastModel:
    """A decoder that computes in floats with recorded programs, keys and values in float32.

    The logits are the exact mode's but for the order of sums, several times as fast. Raises NotRecordableError for
    what no step does.
    """
    isa = instruction_set()
    operands = operands or FloatOperands(source, isa)
    return FastModel(source.family, source.hp, operands, source.name, Cached("F32", isa))
