"""Weights of which some matrices are others: decoded ones, or rows in a block type."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edgeq.engine.model import Model
from edgeq.engine.weights import Floats, Weights
from edgeq.formats import blocks


class Matrix(Protocol):
    """A matrix, or a stack of them, rows in Hugging Face's order."""

    def picked(self, ids: NDArray[np.int64]) -> Floats:
        """Some rows: ``[len(ids), columns]``."""

    def product(self, x: Floats, expert: int | None) -> Floats:
        """``x @ matrix.T``: ``[T, columns] -> [T, rows]``, with one matrix of a stack where ``expert`` is given."""


@dataclass(frozen=True)
class DecodedMatrix:
    """``[rows, columns]``."""

    values: Floats

    def picked(self, ids: NDArray[np.int64]) -> Floats:
        return self.values[ids]

    def product(self, x: Floats, expert: int | None) -> Floats:
        return np.asarray(x @ self.values.T)


@dataclass(frozen=True)
class EncodedMatrix:
    """Rows ``[rows, row bytes]`` of ``columns`` values in a block type; ``height`` rows are one matrix of a stack."""

    type_name: str
    rows: NDArray[np.uint8]
    columns: int
    height: int

    def picked(self, ids: NDArray[np.int64]) -> Floats:
        return blocks.by_name(self.type_name).decode(self.rows[ids], self.columns)

    def product(self, x: Floats, expert: int | None) -> Floats:
        from edgeq.kernels_cpu.matmul import matmul

        first = (expert or 0) * self.height
        return matmul(x, self.rows[first : first + self.height], self.type_name)


class ReplacedWeights:
    """``Weights`` with ``replaced`` in place of the matrices of these names."""

    def __init__(self, weights: Weights, replaced: Mapping[str, Matrix] | None = None) -> None:
        self.weights = weights
        self.replaced: dict[str, Matrix] = dict(replaced or {})

    def has(self, name: str) -> bool:
        return self.weights.has(name)

    def vector(self, name: str) -> Floats:
        return self.weights.vector(name)

    def picked(self, name: str, ids: NDArray[np.int64]) -> Floats:
        other = self.replaced.get(name)
        return self.weights.picked(name, ids) if other is None else other.picked(ids)

    def product(self, x: Floats, name: str, expert: int | None = None) -> Floats:
        other = self.replaced.get(name)
        return self.weights.product(x, name, expert) if other is None else other.product(x, expert)


def with_replaced(model: Model, replaced: Mapping[str, Matrix]) -> Model:
    """The model with other matrices of these names."""
    return Model(model.family, model.hp, ReplacedWeights(model.weights, replaced), model.name)
