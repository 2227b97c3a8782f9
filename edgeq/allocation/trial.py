"""A model with some tensors quantized for a trial, without a file: the engine reads the encoded rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeq.engine.model import Model
from edgeq.engine.replaced import EncodedMatrix, with_replaced

Bytes = NDArray[np.uint8]


@dataclass(frozen=True)
class Coded:
    """A matrix, or a stack of them, in a block type: rows in Hugging Face's order."""

    type_name: str
    rows: Bytes  # [rows, row bytes]
    columns: int


Coder = Callable[[str, str], Coded]  # (tensor, type) → its rows encoded


def with_coded(model: Model, coded: Mapping[str, Coded], shapes: Mapping[str, tuple[int, ...]]) -> Model:
    """The model with those tensors as encoded, the rest as they are."""
    replaced = {
        name: EncodedMatrix(one.type_name, one.rows, one.columns, shapes[name][-2])
        for name, one in coded.items()
    }
    return with_replaced(model, replaced)
