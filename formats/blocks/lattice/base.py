"""What a lattice and its numbers are."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgeq.formats.blocks.base import Bytes, Floats

_AT_ONCE = 1 << 19  # values: NumPy looks levels up by indices of eight bytes each


class Lattice(NamedTuple):
    """Which numbers a type's blocks may hold.

    ``levels`` are ascending, float32; ``sub_values`` share a scale and a min, whole numbers from ``scales`` and
    ``mins`` (lowest, highest). ``tied``: dmin is d. ``half``: d and dmin are float16's values.
    """

    levels: Floats
    sub_values: int
    scales: tuple[int, int] = (1, 1)
    mins: tuple[int, int] = (0, 0)
    tied: bool = False
    half: bool = True

    @property
    def consecutive(self) -> bool:
        """Whether the levels are whole numbers, one after the other."""
        return bool((np.diff(self.levels) == 1).all())


class Parts(NamedTuple):
    """The numbers of some blocks, or of whole rows of them (``in_rows``)."""

    d: Floats  # [n]
    dmin: Floats  # [n]
    scales: Floats  # [n, sub-blocks], whole numbers
    mins: Floats  # the same
    codes: Bytes  # [n, values]

    def in_rows(self, rows: int) -> Parts:
        """The same with a matrix's row in each row: ``d[rows, blocks]``, ``scales[rows, sub-blocks]`` …"""
        d, dmin, scales, mins = (
            np.ascontiguousarray(part, np.float32).reshape(rows, -1) for part in self[:4]
        )
        return Parts(d, dmin, scales, mins, np.ascontiguousarray(self.codes).reshape(rows, -1))

    def in_blocks(self, values: int) -> Parts:
        """The inverse of ``in_rows`` for blocks of so many values."""
        n = self.codes.size // values
        d, dmin = self.d.reshape(n), self.dmin.reshape(n)
        return Parts(d, dmin, self.scales.reshape(n, -1), self.mins.reshape(n, -1), self.codes.reshape(n, -1))

    def grid(self) -> tuple[Floats, Floats]:
        """Scale and offset of each sub-block of parts in rows: x = scale · level + offset."""
        each = self.scales.shape[1] // self.d.shape[1]
        return np.repeat(self.d, each, axis=1) * self.scales, -np.repeat(self.dmin, each, axis=1) * self.mins

    def values(self, lattice: Lattice) -> Floats:
        """What parts in rows stand for, float32 ``[rows, columns]``."""
        values, (scale, offset) = np.empty(self.codes.shape, np.float32), self.grid()
        step = max(1, _AT_ONCE // max(1, self.codes.shape[1]))
        for first in range(0, len(values), step):
            own = slice(first, first + step)
            levels = lattice.levels[self.codes[own]].reshape(*scale[own].shape, lattice.sub_values)
            subs = levels * scale[own, :, None] + offset[own, :, None]
            values[own] = subs.reshape(len(subs), -1)
        return values


def whole(low: int, high: int) -> Floats:
    """The whole numbers from low to high as levels."""
    return np.arange(low, high + 1, dtype=np.float32)


def one_scale(d: Floats, codes: NDArray[np.integer]) -> Parts:
    """Parts of blocks that have a d only."""
    return scales_only(d, np.ones((len(d), 1), np.float32), codes)


def scales_only(d: Floats, scales: Floats, codes: NDArray[np.integer]) -> Parts:
    """Parts of blocks without mins."""
    return Parts(d, np.zeros_like(d), scales, np.zeros_like(scales), _flat(codes, len(d)))


def scale_and_low(d: Floats, low: Floats, codes: NDArray[np.integer]) -> Parts:
    """Parts of blocks that are d · code + low."""
    ones = np.ones((len(d), 1), np.float32)
    return Parts(d, -low, ones, ones, _flat(codes, len(d)))


def _flat(codes: NDArray[np.integer], n: int) -> Bytes:
    return np.asarray(codes.reshape(n, -1), np.uint8)
