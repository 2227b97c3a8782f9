"""The scales of blocks searched under each sub-block's own part of the Gram matrix, codes rounded to nearest.

That is AWQ's clipping (``auto_clip`` in mit-han-lab/llm-awq), which tries narrower ranges by what a group of columns
gives: a block whose largest weight meets small inputs may cut it off. Besides narrower ranges it tries the minimums
next to those there are, and where sub-blocks share a super-block's d, the whole numbers next to their scales; a d of
its own is then fitted to the codes by least squares.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from edgeq.formats.blocks.base import Bytes, Floats
from edgeq.formats.blocks.lattice import Lattice, Parts

_PIECE = 1 << 20  # values that are worked on at a time
_RANGES = np.linspace(0.6, 1.1, 11, dtype=np.float32)  # of a d, beside the one there is
_NEAR = (-1, 0, 1)  # whole numbers beside a scale or a min
_ONE = np.float32(1)


def own_grams(gram: Floats, size: int) -> Floats:
    """The parts of a Gram matrix on its diagonal, float32 ``[sub-blocks, size, size]``."""
    count = len(gram) // size
    return np.stack([gram[i * size : (i + 1) * size, i * size : (i + 1) * size] for i in range(count)])


def search_scales(weights: Floats, parts: Parts, lattice: Lattice, grams: Floats) -> None:
    """Improve ``parts`` (in rows) of float32 ``[rows, columns]`` in place, each sub-block by itself.

    ``grams`` is float32 ``[sub-blocks, size, size]``. No block's error grows but by the rounding of codes to nearest.
    """
    step = max(1, _PIECE // weights.shape[1])
    for begin in range(0, len(weights), step):
        rows = slice(begin, begin + step)
        own = Parts(parts.d[rows], parts.dmin[rows], parts.scales[rows], parts.mins[rows], parts.codes[rows])
        _search(weights[rows], own, lattice, grams)


def _search(weights: Floats, parts: Parts, lattice: Lattice, grams: Floats) -> None:
    rows, subs = parts.scales.shape
    x = np.ascontiguousarray(weights.reshape(rows, subs, lattice.sub_values).transpose(1, 0, 2))
    best = _Best(x, lattice, grams, parts)
    for trial in _trials(best.given, lattice):
        best.offer(*trial)
    best.into(parts)


Grid = tuple[Floats, Floats, Floats, Floats]  # d, dmin, scale, min of sub-blocks [subs, rows]


def _trials(given: Grid, lattice: Lattice) -> Iterator[Grid]:
    """Other grids for the sub-blocks."""
    d, dmin, scales, mins = given
    own = lattice.scales[0] == lattice.scales[1]
    near = _NEAR if lattice.mins[0] < lattice.mins[1] else (0,)
    for step in near:
        moved = np.clip(mins + np.float32(step), *lattice.mins)
        if not own:
            for i in _NEAR:
                yield d, dmin, np.clip(scales + np.float32(i), *lattice.scales), moved
            continue
        for factor in _RANGES:
            low = dmin * factor if lattice.tied else dmin
            if not lattice.tied and lattice.mins[0]:  # the range shrinks towards its middle
                low = dmin - d * (_ONE - factor) * lattice.levels.mean()
            yield d * factor, low, scales, moved


class _Best:
    """The best grid and codes so far of each sub-block, ``[subs, rows]`` and ``[subs, rows, size]``."""

    def __init__(self, x: Floats, lattice: Lattice, grams: Floats, parts: Parts) -> None:
        self.x, self.lattice, self.grams = x, lattice, grams
        each = parts.scales.shape[1] // parts.d.shape[1]
        d, dmin = np.repeat(parts.d, each, axis=1).T, np.repeat(parts.dmin, each, axis=1).T
        self.given: Grid = d, dmin, parts.scales.T, parts.mins.T
        self.grid = tuple(part.copy() for part in self.given)
        self.codes = np.ascontiguousarray(parts.codes.reshape(x.shape[1], len(x), -1).transpose(1, 0, 2))
        self.error = self._error(self.given, self.codes)
        self.moved_products = x @ grams

    def offer(self, d: Floats, dmin: Floats, scales: Floats, mins: Floats) -> None:
        """Take a grid where it is better; and with it, where the sub-block has a d of its own, the best d."""
        codes = nearest_codes(self.x, d * scales, -dmin * mins, self.lattice)
        if self.lattice.half:
            d, dmin = (part.astype(np.float16).astype(np.float32) for part in (d, dmin))
        self._keep((d, dmin, scales, mins), codes)
        if self.lattice.scales[0] == self.lattice.scales[1]:
            d = self._fitted(d, dmin, scales, mins, codes)
            self._keep((d, d if self.lattice.tied else dmin, scales, mins), codes)

    def _fitted(self, d: Floats, dmin: Floats, scales: Floats, mins: Floats, codes: Bytes) -> Floats:
        levels, grams = self.lattice.levels[codes] * scales[..., None], self.grams
        wanted = self.moved_products
        if self.lattice.tied:
            levels = levels - mins[..., None]
        elif mins.any():
            wanted = wanted + (dmin * mins)[..., None] * grams.sum(axis=1)[:, None]
        square = ((levels @ grams) * levels).sum(axis=-1)
        fitted = (wanted * levels).sum(axis=-1) / np.where(square > 0, square, _ONE)
        if self.lattice.half:
            fitted = fitted.astype(np.float16).astype(np.float32)
        return np.where((square > 0) & np.isfinite(fitted), fitted, d)

    def _keep(self, grid: Grid, codes: Bytes) -> None:
        error = self._error(grid, codes)
        better = error < self.error
        for own, part in zip((*self.grid, self.error), (*grid, error), strict=True):
            np.copyto(own, part, where=better)
        np.copyto(self.codes, codes, where=better[..., None])

    def _error(self, grid: Grid, codes: Bytes) -> Floats:
        d, dmin, scales, mins = grid
        away = (d * scales)[..., None] * self.lattice.levels[codes] - (dmin * mins)[..., None] - self.x
        return np.asarray(((away @ self.grams) * away).sum(axis=-1))

    def into(self, parts: Parts) -> None:
        """The numbers to where they came from."""
        each = parts.scales.shape[1] // parts.d.shape[1]
        d, dmin, scales, mins = (part.T for part in self.grid)
        parts.d[:], parts.dmin[:], parts.scales[:], parts.mins[:] = (
            d[:, ::each],
            dmin[:, ::each],
            scales,
            mins,
        )
        parts.codes[:] = self.codes.transpose(1, 0, 2).reshape(parts.codes.shape)


def nearest_codes(x: Floats, scale: Floats, offset: Floats, lattice: Lattice) -> Bytes:
    """The codes nearest to ``[…, size]`` for scales and offsets ``[…]``; 0 where the scale is 0."""
    safe = np.where(scale == 0, np.inf, scale)[..., None]
    level = (x - offset[..., None]) / safe
    if lattice.consecutive:
        top = np.float32(len(lattice.levels) - 1)
        found: NDArray[np.uint8] = np.rint(np.clip(level - lattice.levels[0], 0, top)).astype(np.uint8)
    else:
        middles = (lattice.levels[1:] + lattice.levels[:-1]) / 2
        found = np.searchsorted(middles, level, side="right").astype(np.uint8)
    return np.where(scale[..., None] == 0, np.uint8(0), found)
