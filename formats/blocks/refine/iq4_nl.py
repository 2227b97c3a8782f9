"""Refiner of IQ4_NL: its layout is described in ``edgeq.formats.blocks.iq4_nl``."""

from __future__ import annotations

import numpy as np

from edgeq.formats.blocks import iq4_nl, nonlinear
from edgeq.formats.blocks.base import Bytes, Floats
from edgeq.formats.blocks.refine.symmetric_search import Search, floats, grid, refine_scale, rounds
from edgeq.formats.effort import Effort


def LEVELS(x: Floats) -> Floats:
    """The nearest of the sixteen levels."""
    return nonlinear.LEVELS[nonlinear.nearest_level(x)]


SEARCHES = {
    Effort.normal: Search(
        floats(
            1,
            -1.11,
            0.933,
            1.231,
            -1.035,
            0.8706,
            0.9659,
            -1.149,
            1.11,
            1.035,
            -0.9659,
            -1.072,
            -0.8706,
            1.189,
            -1.366,
            0.9013,
        ),
        rounds(0, 0),
    ),
    Effort.best: Search(grid(0.6, 1.6, 100, both_signs=True), rounds(0, 0, 0)),
}
WEIGHTED_SEARCHES = {
    Effort.normal: Search(
        floats(
            1,
            -1.11,
            1.231,
            0.8123,
            -0.9013,
            -1.189,
            0.933,
            -1.035,
            1.11,
            -1.414,
            -0.8123,
            0.7579,
            1.319,
            1.035,
            0.9659,
            -0.732,
            0.8706,
            -1.275,
            -1.149,
            -1.072,
        ),
        rounds(0, 0),
    ),
    Effort.best: Search(grid(0.6, 1.6, 100, both_signs=True), rounds(0, 0, 0)),
}


def refine_blocks(values: Floats, weights: Floats, blocks: Bytes, search: Search) -> Bytes:
    """See the package."""
    return refine_scale(values, weights, blocks, 0, 1, LEVELS, search, _pack)


def _pack(d: np.ndarray, units: Floats) -> Bytes:
    return iq4_nl.pack(d, nonlinear.nearest_level(units))
