"""Refiner of IQ4_XS: its layout is described in ``edgeq.formats.blocks.iq4_xs``."""

from __future__ import annotations

import numpy as np

from edgeq.formats.blocks import iq4_xs
from edgeq.formats.blocks.base import Bytes, Floats
from edgeq.formats.blocks.nonlinear import nearest_level
from edgeq.formats.blocks.refine.iq4_nl import LEVELS
from edgeq.formats.blocks.refine.symmetric_search import Search, floats, grid, refine_scales, rounds
from edgeq.formats.effort import Effort

SPAN = (-32, 31)
SEARCHES = {
    Effort.normal: Search(
        floats(
            1,
            -1.11,
            0.933,
            1.231,
            -1.035,
            0.9659,
            0.8706,
            1.035,
            -1.149,
            1.149,
            -0.9659,
            -1.072,
            -0.8706,
            1.072,
            -1.189,
            -1.366,
        ),
        rounds(1, 0),
        peaks=grid(0.875, 1.125, 9),
    ),
    Effort.best: Search(
        grid(0.6, 1.6, 60, both_signs=True),
        rounds(2, 1, 1, 0),
        peaks=grid(0.875, 1.125, 9),
        starts=grid(0.85, 1.2, 10),
    ),
}
WEIGHTED_SEARCHES = {
    Effort.normal: Search(
        floats(
            1,
            -1.11,
            1.231,
            0.8123,
            -1.189,
            -0.9013,
            0.9659,
            -1.035,
            1.035,
            0.9013,
            1.149,
            0.7579,
            -1.414,
            1.319,
            -0.8123,
            -0.732,
            -1.275,
            1.516,
            -0.9659,
            -1.149,
        ),
        rounds(1, 0),
        peaks=grid(0.875, 1.125, 9),
    ),
    Effort.best: Search(
        grid(0.6, 1.6, 60, both_signs=True),
        rounds(2, 1, 1, 0),
        peaks=grid(0.875, 1.125, 9),
        starts=grid(0.85, 1.2, 10),
    ),
}


def refine_blocks(values: Floats, weights: Floats, blocks: Bytes, search: Search) -> Bytes:
    """See the package."""
    d, codes = iq4_xs.unpack_scales(blocks)
    return refine_scales(values, weights, blocks, LEVELS, SPAN, d, codes, search, _pack)


def _pack(d: np.ndarray, scale_codes: Floats, units: Floats) -> Bytes:
    return iq4_xs.pack(d, (scale_codes + np.float32(32)).astype(np.uint8), nearest_level(units))
