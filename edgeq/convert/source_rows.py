"""The rows of a checkpoint's weights, as the passes over ONNX graphs read them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgeq.formats.checkpoint.quantized import Grid
from edgeq.formats.table_codes import TableCodes
from edgeq.source import ModelSource


class SourceRows:
    """``edgeq.formats.onnx.rows.RowReader`` of a tensor, or of one expert's part of a stack."""

    def __init__(self, source: ModelSource, name: str, expert: int = 0) -> None:
        *_, rows, columns = source.shape(name)
        self.shape: tuple[int, int] = (rows, columns)
        self.layout = source.layout(name)
        self._source, self._name, self._first = source, name, expert * rows
        self._is_whole = len(source.shape(name)) == 2

    def rows(self, start: int, stop: int) -> NDArray[np.float32]:
        values = self._source.rows(self._name, self._first + start, self._first + stop)
        self._source.release(self._name)
        return values

    def grid(self, start: int, stop: int) -> Grid | None:
        if self.layout is None:
            return None
        grid = self._source.grid(self._name, self._first + start, self._first + stop)
        self._source.release(self._name)
        return grid

    def codes(self) -> TableCodes | None:
        return self._source.codes(self._name) if self.layout is not None and self._is_whole else None

    def done(self) -> None:
        """Nothing: rows are let go as they are read."""
