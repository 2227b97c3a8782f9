"""A model with some tensors quantized for a trial, without a file: the engine reads the encoded rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeq.engine.model import Model
from edgeq.engine.weights import Floats, Weights
from edgeq.formats import blocks

Bytes = NDArray[np.uint8]


@dataclass(frozen=True)
class Coded:
    """A matrix, or a stack of them, in a block type: rows in Hugging Face's order."""

    type_name: str
    rows: Bytes  # [rows, row bytes]
    columns: int


Coder = Callable[[str, str], Coded]  # (tensor, type) → its rows encoded


class TrialWeights:
    """``Weights`` in which some tensors are replaced by encoded ones."""

    def __init__(self, weights: Weights, coded: Mapping[str, Coded], heights: Mapping[str, int]) -> None:
        self._weights, self._coded, self._heights = weights, coded, heights

    def has(self, name: str) -> bool:
        return self._weights.has(name)

    def vector(self, name: str) -> Floats:
        return self._weights.vector(name)

    def picked(self, name: str, ids: NDArray[np.int64]) -> Floats:
        coded = self._coded.get(name)
        if coded is None:
            return self._weights.picked(name, ids)
        return blocks.by_name(coded.type_name).decode(coded.rows[ids], coded.columns)

    def product(self, x: Floats, name: str, expert: int | None = None) -> Floats:
        from edgeq.kernels_cpu.matmul import matmul

        coded = self._coded.get(name)
        if coded is None:
            return self._weights.product(x, name, expert)
        height = self._heights[name]
        first = (expert or 0) * height
        return matmul(x, coded.rows[first : first + height], coded.type_name)


def with_coded(model: Model, coded: Mapping[str, Coded], shapes: Mapping[str, tuple[int, ...]]) -> Model:
    """The model with those tensors as encoded, the rest as they are."""
    heights = {name: shapes[name][-2] for name in coded}
    return Model(model.family, model.hp, TrialWeights(model.weights, coded, heights), model.name)
