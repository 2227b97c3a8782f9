"""Refiner of TQ1_0: its layout is described in ``edgeq.formats.blocks.tq1_0``."""

from __future__ import annotations

import numpy as np

from edgeq.formats.blocks import tq1_0
from edgeq.formats.blocks.base import Bytes, Floats
from edgeq.formats.blocks.refine.symmetric_search import Search, floats, grid, refine_scale, rounds, uniform
from edgeq.formats.effort import Effort

LEVELS = uniform(-1, 1)
SEARCHES = {
    Effort.normal: Search(floats(1, 0.5, 0.35), rounds(0, 0)),
    Effort.best: Search(grid(0.2, 1, 30), rounds(0, 0)),
}


def refine_blocks(values: Floats, weights: Floats, blocks: Bytes, search: Search) -> Bytes:
    """See the package."""
    return refine_scale(values, weights, blocks, 52, 16, LEVELS, search, _pack)


def _pack(d: np.ndarray, units: Floats) -> Bytes:
    return tq1_0.pack(d, (LEVELS(units) + np.float32(1)).astype(np.uint8))
