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
            1, -1.11, 1.23, 0.93, 0.812, -1.035, -1.189, -0.9, 1.035, 1.12, 0.87, 0.757, -1.41, 1.32, -0.81
        ),
        rounds(1, 0),
        peaks=grid(0.875, 1.125, 9),
    ),
    Effort.best: Search(
        grid(0.7, 1.45, 40, both_signs=True),
        rounds(2, 1, 1, 0),
        peaks=grid(0.875, 1.125, 9),
        starts=floats(1, 0.95, 1.05, -1),
    ),
}


def refine_blocks(values: Floats, weights: Floats, blocks: Bytes, search: Search) -> Bytes:
    """See the package."""
    d, codes = iq4_xs.unpack_scales(blocks)
    return refine_scales(values, weights, blocks, LEVELS, SPAN, d, codes, search, _pack)


def _pack(d: np.ndarray, scale_codes: Floats, units: Floats) -> Bytes:
    return iq4_xs.pack(d, (scale_codes + np.float32(32)).astype(np.uint8), nearest_level(units))
