"""Refiner of IQ4_NL: its layout is described in ``edgeq.formats.blocks.iq4_nl``."""

from __future__ import annotations

import numpy as np

from edgeq.formats.blocks import iq4_nl, nonlinear
from edgeq.formats.blocks.base import Bytes, Floats
from edgeq.formats.blocks.refine.symmetric_search import Search, floats, grid, refine_scale, rounds
from edgeq.formats.effort import Effort


def nearest(x: Floats) -> Floats:
    """The nearest of the sixteen levels."""
    return nonlinear.LEVELS[nonlinear.nearest_level(x)]


_FACTORS = floats(
    1, -1.11, 0.93, 1.23, -1.04, 0.87, 0.97, -1.15, 1.11, 1.04, -0.97, -1.07, -0.87, 1.19, -1.37, 0.9
)
_WEIGHTED_FACTORS = floats(
    1, -1.11, 1.23, 0.81, -0.9, -1.19, 0.93, -1.04, 1.11, -1.41, -0.81, 0.76, 1.32, 1.04, 0.97
)
_BEST = Search(grid(0.6, 1.6, 100, both_signs=True), rounds(0, 0, 0))
SEARCHES = {
    Effort.normal: Search(_FACTORS, rounds(0, 0)),
    Effort.best: _BEST,
}
WEIGHTED_SEARCHES = {
    Effort.normal: Search(_WEIGHTED_FACTORS, rounds(0, 0)),
    Effort.best: _BEST,
}


def refine_blocks(values: Floats, weights: Floats, blocks: Bytes, search: Search) -> Bytes:
    """See the package."""
    return refine_scale(values, weights, blocks, 0, 1, nearest, search, _pack)


def _pack(d: np.ndarray, units: Floats) -> Bytes:
    return iq4_nl.pack(d, nonlinear.nearest_level(units))
