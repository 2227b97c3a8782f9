"""Refiner of Q4_0: its layout is described in ``edgeq.formats.blocks.q4_0``."""

from __future__ import annotations

import numpy as np

from edgeq.formats.blocks import q4_0
from edgeq.formats.blocks.base import Bytes, Floats
from edgeq.formats.blocks.refine.symmetric_search import Search, floats, grid, refine_scale, rounds, uniform
from edgeq.formats.effort import Effort

LEVELS = uniform(-8, 7)
SEARCHES = {
    Effort.normal: Search(floats(0.9772, 0.933, 1.023, 1.123), rounds(0)),
    Effort.best: Search(grid(0.5, 1.5, 60, both_signs=True), rounds(0, 0)),
}
WEIGHTED_SEARCHES = {
    Effort.normal: Search(
        floats(
            1,
            0.8312,
            0.7405,
            -0.8706,
            0.9117,
            0.9548,
            1.203,
            0.6752,
            -0.9548,
            -0.7937,
            0.8706,
            1.35,
            0.7937,
            0.6015,
        ),
        rounds(0, 0),
    ),
    Effort.best: Search(grid(0.5, 1.5, 60, both_signs=True), rounds(0, 0)),
}


def refine_blocks(values: Floats, weights: Floats, blocks: Bytes, search: Search) -> Bytes:
    """See the package."""
    return refine_scale(values, weights, blocks, 0, 1, LEVELS, search, _pack)


def _pack(d: np.ndarray, units: Floats) -> Bytes:
    return q4_0.pack(d, (LEVELS(units) + np.float32(8)).astype(np.uint8))
