"""Refiner of Q5_0: its layout is described in ``edgeq.formats.blocks.q5_0``."""

from __future__ import annotations

import numpy as np

from edgeq.formats.blocks import q5_0
from edgeq.formats.blocks.base import Bytes, Floats
from edgeq.formats.blocks.refine.symmetric_search import Search, floats, grid, refine_scale, rounds, uniform
from edgeq.formats.effort import Effort

LEVELS = uniform(-16, 15)
SEARCHES = {
    Effort.normal: Search(floats(1, 0.97, 1.06, 1.14, 0.91, 1.03, 0.86), rounds(0)),
    Effort.best: Search(grid(0.6, 1.4, 80, both_signs=True), rounds(0, 0)),
}


def refine_blocks(values: Floats, weights: Floats, blocks: Bytes, search: Search) -> Bytes:
    """See the package."""
    return refine_scale(values, weights, blocks, 0, 1, LEVELS, search, _pack)


def _pack(d: np.ndarray, units: Floats) -> Bytes:
    return q5_0.pack(d, (LEVELS(units) + np.float32(16)).astype(np.uint8))
