"""Integers that others quantized a weight to, as blocks: whether they fit, and copied where they do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeq.formats.checkpoint.quantized import Grid
from edgeq.formats.onnx.blocked import SIZES, BlockedRows, Scheme
from edgeq.formats.onnx.rows import RowReader, pieces

_SAMPLE_ROWS = 8  # packed layouts keep eight rows in a word


@dataclass(frozen=True)
class GridPlan:
    """How a whole grid lies in blocks.

    ``order`` int64 ``[columns]`` puts the columns into blocks, None where they lie so; ``offsets``: some block has one.
    """

    scheme: Scheme
    order: NDArray[np.int64] | None
    offsets: bool

    def copied(self, grid: Grid) -> BlockedRows:
        """Rows of the grid in blocks, without loss; offsets are left to the caller."""
        size = self.scheme.size
        codes = grid.codes if self.order is None else grid.codes[:, self.order]
        first = self.first_columns(grid)
        missing = -codes.shape[1] % size
        if missing:
            fill = np.repeat(grid.zeros[:, first[-1:]], missing, axis=1)
            codes = np.concatenate([codes, fill], axis=1)
        zeros = None if self.scheme.symmetric else grid.zeros[:, first].astype(np.uint8)
        return BlockedRows(self.scheme, codes.astype(np.uint8), grid.scales[:, first], zeros)

    def first_columns(self, grid: Grid) -> NDArray[np.int64]:
        """Each block's group."""
        groups = grid.groups if self.order is None else grid.groups[self.order]
        return groups[:: self.scheme.size]


def plan_grid(reader: RowReader, allowed: Sequence[int]) -> GridPlan | None:
    """How blocks of the fewest of the ``allowed`` bits hold the reader's integers; None where they cannot.

    Reads the weight once. A scale that is not finite does not fit: who reads the rows as floats will say so.
    """
    if not min(reader.shape):
        return None
    sample = reader.grid(0, min(_SAMPLE_ROWS, reader.shape[0]))
    if sample is None:
        return None
    order = _order(sample.groups)
    groups = sample.groups if order is None else sample.groups[order]
    size = next((size for size in reversed(SIZES) if _made_of(groups, size)), None)
    if size is None:
        return None
    highest, zeros, offsets = 0, set[int](), False
    for start, stop in pieces(reader):
        grid = reader.grid(start, stop)
        if grid is None or not np.isfinite(grid.scales).all():
            return None
        highest = max(highest, int(grid.codes.max()))
        zeros.update(np.unique(grid.zeros).tolist())
        offsets = offsets or grid.offsets is not None
    bits = next((bits for bits in allowed if max(highest, *zeros) < 1 << bits), None)
    if bits is None or min(zeros) < 0:
        return None
    return GridPlan(Scheme(bits, size, zeros == {1 << (bits - 1)}), order, offsets)


def _order(groups: NDArray[np.int64]) -> NDArray[np.int64] | None:
    """The columns group by group, None where they stand so."""
    if (np.diff(groups) >= 0).all():
        return None
    return np.argsort(groups, kind="stable")


def _made_of(groups: NDArray[np.int64], size: int) -> bool:
    """Whether all columns of each block are of one group."""
    return bool((np.repeat(groups[::size], size)[: len(groups)] == groups).all())
