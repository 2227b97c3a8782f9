"""Weights as the integers they were quantized to: what GPTQ, AWQ and several block types have in common."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Grid:
    """Some rows of a weight as the integers they were quantized to: value = scale · (code − zero) + offset.

    Attributes:
        codes: int16 ``[rows, columns]``, from 0.
        scales: float32 ``[rows, groups]``.
        zeros: int16 ``[rows, groups]``.
        groups: int64 ``[columns]``, each column's group.
        offsets: float32 ``[rows, groups]``, None where all are 0.
    """

    codes: NDArray[np.int16]
    scales: Floats
    zeros: NDArray[np.int16]
    groups: NDArray[np.int64]
    offsets: Floats | None = None

    @classmethod
    def stacked(cls, grids: Sequence[Grid]) -> Grid:
        """Grids of the same groups, one below the other."""
        offsets = None
        if any(grid.offsets is not None for grid in grids):
            offsets = np.concatenate([grid.all_offsets() for grid in grids])
        codes, scales, zeros = (
            np.concatenate([getattr(grid, name) for grid in grids]) for name in ("codes", "scales", "zeros")
        )
        return cls(codes, scales, zeros, grids[0].groups, offsets)

    def values(self) -> Floats:
        """The weights in float32: exact for scales of 16 bits, not rounded to 16 bits as half-precision kernels do."""
        if self.offsets is not None:  # rounded once, however large the offset is
            exact = self.signed() * self.scales.astype(np.float64).take(self.groups, axis=1)
            return (exact + self.offsets.take(self.groups, axis=1)).astype(np.float32)
        values = self.signed().astype(np.float32)
        values *= self.scales.take(self.groups, axis=1)
        return values

    def all_offsets(self) -> Floats:
        """The offsets, zeros where there are none."""
        return np.zeros_like(self.scales) if self.offsets is None else self.offsets

    def signed(self) -> NDArray[np.int16]:
        """code − zero, ``[rows, columns]``."""
        return self.codes - self.zeros.take(self.groups, axis=1)

    def reordered(self, rows: NDArray[np.int64]) -> Grid:
        """The grid with its rows in another order."""
        offsets = None if self.offsets is None else self.offsets[rows]
        return Grid(self.codes[rows], self.scales[rows], self.zeros[rows], self.groups, offsets)
