"""Refiner of Q5_0: its layout is described in ``edgeq.formats.blocks.q5_0``."""

from __future__ import annotations

import numpy as np

from edgeq.formats.blocks import q5_0
from edgeq.formats.blocks.base import Bytes, Floats
from edgeq.formats.blocks.refine.symmetric_search import Search, floats, grid, refine_scale, rounds, uniform
from edgeq.formats.effort import Effort

LEVELS = uniform(-16, 15)
_FACTORS = floats(0.991, 1.054, 0.966, 1.009, 1.14, 1.082, 1.223, 0.983, 1.027, 0.949, 1.12, 1.16)
_WEIGHTED_FACTORS = floats(1, 1.15, 0.91, 1.08, 0.85, 1.24, 0.96, 0.79, 1.12, -0.93, 1.19, 0.98, 0.93, 1.03)
_BEST = Search(grid(0.6, 1.4, 80, both_signs=True), rounds(0, 0))
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
    return refine_scale(values, weights, blocks, 0, 1, LEVELS, search, _pack)


def _pack(d: np.ndarray, units: Floats) -> Bytes:
    return q5_0.pack(d, (LEVELS(units) + np.float32(16)).astype(np.uint8))
