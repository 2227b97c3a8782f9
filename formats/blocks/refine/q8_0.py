"""Refiner of Q8_0: its layout is described in ``edgeq.formats.blocks.q8_0``."""

from __future__ import annotations

import numpy as np

from edgeq.formats.blocks import q8_0
from edgeq.formats.blocks.base import Bytes, Floats
from edgeq.formats.blocks.refine.symmetric_search import Search, grid, refine_scale, rounds, uniform
from edgeq.formats.effort import Effort

LEVELS = uniform(-127, 127)
SEARCHES = {
    Effort.normal: Search(grid(0.99, 1.11, 24), rounds(0, 0)),
    Effort.best: Search(grid(0.97, 1.25, 250), rounds(0, 0)),
}


def refine_blocks(values: Floats, weights: Floats, blocks: Bytes, search: Search) -> Bytes:
    """See the package."""
    return refine_scale(values, weights, blocks, 0, 1, LEVELS, search, _pack)


def _pack(d: np.ndarray, units: Floats) -> Bytes:
    return q8_0.pack(d, LEVELS(units))
