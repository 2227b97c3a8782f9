"""Where the rows of a large initializer come from: read a few at a time, with the integers that others made of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, TypeVar

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgeq.formats.checkpoint.quantized import Grid
from edgeq.formats.mapping import drop_pages
from edgeq.formats.table_codes import TableCodes

Floats = NDArray[np.float32]
Made = TypeVar("Made")

_KEY = "edgeq.rows"  # of an initializer's meta
_PIECE_VALUES = 1 << 22
_SAMPLE_ROWS = 8  # packed layouts keep eight rows in a word


class RowReader(Protocol):
    """A matrix of ``shape`` (outputs, inputs), whichever way round the initializer stores it.

    ``layout`` says in words how others quantized it, None if nobody did.
    """

    shape: tuple[int, int]
    layout: str | None

    def rows(self, start: int, stop: int) -> Floats:
        """Rows ``start`` to before ``stop``, float32 ``[stop - start, inputs]``."""

    def grid(self, start: int, stop: int) -> Grid | None:
        """The same rows as integers, where others quantized them to such."""

    def codes(self) -> TableCodes | None:
        """All rows as the codes of a table, where others quantized them to such."""

    def done(self) -> None:
        """Nobody will read rows soon."""


class MatrixRows:
    """The rows of a tensor in memory, or on a mapped file; ``transposed`` stores (outputs, inputs)."""

    layout: str | None = None

    def __init__(self, tensor: ir.TensorProtocol, transposed: bool) -> None:
        self._tensor, self._transposed = tensor, transposed
        self._matrix: Floats | None = (
            None  # read once: one that is made anew at each look is made of other floats
        )
        rows, columns = tensor.shape.numpy() if transposed else tensor.shape.numpy()[::-1]
        self.shape: tuple[int, int] = (rows, columns)

    def rows(self, start: int, stop: int) -> Floats:
        if self._matrix is None:
            self._matrix = self._tensor.numpy()
        return self._matrix[start:stop] if self._transposed else self._matrix[:, start:stop].T

    def grid(self, start: int, stop: int) -> Grid | None:
        return None

    def codes(self) -> TableCodes | None:
        return None

    def done(self) -> None:
        """Let the system forget the pages of a mapped file."""
        self._matrix = None
        let_go(self._tensor)


class StackedRows:
    """Several matrices of one width, one below the other: layers that read the same activation."""

    def __init__(self, parts: Sequence[RowReader]) -> None:
        self._parts = parts
        self.shape = sum(part.shape[0] for part in parts), parts[0].shape[1]
        layouts = {part.layout for part in parts}
        self.layout = layouts.pop() if len(layouts) == 1 else None

    @staticmethod
    def fit(parts: Sequence[RowReader]) -> bool:
        """Whether others quantized all parts alike, in the same groups, or none of them."""
        if len({(part.layout, part.shape[1]) for part in parts}) > 1:
            return False
        samples = [part.grid(0, min(_SAMPLE_ROWS, part.shape[0])) for part in parts]
        groups = [None if grid is None else grid.groups for grid in samples]
        return all(np.array_equal(each, groups[0]) for each in groups)  # type: ignore[arg-type]

    def rows(self, start: int, stop: int) -> Floats:
        return np.concatenate([part.rows(first, last) for part, first, last in self._cut(start, stop)])

    def grid(self, start: int, stop: int) -> Grid | None:
        grids = [part.grid(first, last) for part, first, last in self._cut(start, stop)]
        known = [grid for grid in grids if grid is not None]
        if len(known) < len(grids) or any((grid.groups != known[0].groups).any() for grid in known):
            return None
        return Grid.stacked(known)

    def codes(self) -> TableCodes | None:
        return TableCodes.stacked([part.codes() for part in self._parts])

    def done(self) -> None:
        for part in self._parts:
            part.done()

    def _cut(self, start: int, stop: int) -> Iterator[tuple[RowReader, int, int]]:
        above = 0
        for part in self._parts:
            height = part.shape[0]
            first, last = max(start - above, 0), min(stop - above, height)
            if first < last:
                yield part, first, last
            above += height


def set_rows(value: ir.Value, reader: RowReader) -> None:
    """Note where an initializer's rows come from."""
    value.meta[_KEY] = reader


def rows_of(value: ir.Value, transposed: bool) -> RowReader:
    """The noted reader, or one of the tensor itself, which ``transposed`` stores (outputs, inputs)."""
    reader: RowReader | None = value.meta.get(_KEY)
    if reader is not None:
        return reader
    assert value.const_value is not None
    return MatrixRows(value.const_value, transposed)


def let_go(tensor: ir.TensorProtocol) -> None:
    """Tell the system that it need not keep the pages of a tensor that lies in a mapped file."""
    if isinstance(tensor, ir.ExternalTensor) and tensor.raw is not None:
        drop_pages(tensor.raw, tensor.offset or 0, tensor.nbytes)


def made_of(tensor: ir.TensorProtocol, make: Callable[[NDArray[Any]], Made]) -> Made:
    """What ``make`` makes of a tensor's numbers; the pages of a mapped file are let go afterwards."""
    found = make(tensor.numpy())
    let_go(tensor)
    return found


def pieces(reader: RowReader) -> Iterator[tuple[int, int]]:
    """Ranges that cover the rows, each a few megabytes."""
    n_rows, columns = reader.shape
    step = max(1, _PIECE_VALUES // max(1, columns))
    step -= step % 8 if step > 8 else 0  # packed layouts keep eight rows in a word
    for start in range(0, n_rows, step):
        yield start, min(n_rows, start + step)
