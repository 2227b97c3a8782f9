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
            1, -1.11, 1.23, 0.93, 0.812, -1.035, -1.189, -0.9, 1.035, 1.12, 0.87, 0.757, -1.41, 1.32, -0.81
        ),
        rounds(0, 0),
    ),
    Effort.best: Search(grid(0.7, 1.45, 60, both_signs=True), rounds(0, 0, 0)),
}


def refine_blocks(values: Floats, weights: Floats, blocks: Bytes, search: Search) -> Bytes:
    """See the package."""
    return refine_scale(values, weights, blocks, 0, 1, LEVELS, search, _pack)


def _pack(d: np.ndarray, units: Floats) -> Bytes:
    return iq4_nl.pack(d, nonlinear.nearest_level(units))
