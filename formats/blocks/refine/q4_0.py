"""Refiner of Q4_0: its layout is described in ``edgeq.formats.blocks.q4_0``."""

from __future__ import annotations

import numpy as np

from edgeq.formats.blocks import q4_0
from edgeq.formats.blocks.base import Bytes, Floats
from edgeq.formats.blocks.refine.symmetric_search import Search, floats, grid, refine_scale, rounds, uniform
from edgeq.formats.effort import Effort

LEVELS = uniform(-8, 7)
_FACTORS = floats(0.977, 0.933, 1.023, 1.123)
_WEIGHTED_FACTORS = floats(1, 0.83, 0.74, -0.87, 0.91, 0.95, 1.2, 0.68, -0.95, -0.79, 0.87, 1.35, 0.79, 0.6)
_BEST = Search(grid(0.5, 1.5, 60, both_signs=True), rounds(0, 0))
SEARCHES = {
    Effort.normal: Search(_FACTORS, rounds(0)),
    Effort.best: _BEST,
}
WEIGHTED_SEARCHES = {
    Effort.normal: Search(_WEIGHTED_FACTORS, rounds(0, 0)),
    Effort.best: _BEST,
}


def refine_blocks(values: Floats, weights: Floats, blocks: Bytes, search: Search) -> Bytes:
    """See the package."""
    return refine_scale(values, weights, blocks, 0, 1, LEVELS, search, _pack)


def _pack(d: np.ndarray, units: Floats) -> Bytes:
    return q4_0.pack(d, (LEVELS(units) + np.float32(8)).astype(np.uint8))
