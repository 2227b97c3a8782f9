"""Refiner of Q5_0: its layout is described in ``edgeq.formats.blocks.q5_0``."""

from __future__ import annotations

import numpy as np

from edgeq.formats.blocks import q5_0
from edgeq.formats.blocks.base import Bytes, Floats
from edgeq.formats.blocks.refine.symmetric_search import Search, floats, grid, refine_scale, rounds, uniform
from edgeq.formats.effort import Effort

LEVELS = uniform(-16, 15)
SEARCHES = {
    Effort.normal: Search(
        floats(0.9913, 1.054, 0.9656, 1.009, 1.14, 1.082, 1.223, 0.9827, 1.027, 0.9489, 1.12, 1.16),
        rounds(0, 0),
    ),
    Effort.best: Search(grid(0.6, 1.4, 80, both_signs=True), rounds(0, 0)),
}
WEIGHTED_SEARCHES = {
    Effort.normal: Search(
        floats(
            1, 1.15, 0.9083, 1.082, 0.8543, 1.244, 0.9572, 0.7897, 1.12, -0.9324, 1.191, 0.9827, 0.9324, 1.027
        ),
        rounds(0, 0),
    ),
    Effort.best: Search(grid(0.6, 1.4, 80, both_signs=True), rounds(0, 0)),
}


def refine_blocks(values: Floats, weights: Floats, blocks: Bytes, search: Search) -> Bytes:
    """See the package."""
    return refine_scale(values, weights, blocks, 0, 1, LEVELS, search, _pack)


def _pack(d: np.ndarray, units: Floats) -> Bytes:
    return q5_0.pack(d, (LEVELS(units) + np.float32(16)).astype(np.uint8))
