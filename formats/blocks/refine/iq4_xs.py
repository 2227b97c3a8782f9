"""Refiner of IQ4_XS: its layout is described in ``edgeq.formats.blocks.iq4_xs``."""

from __future__ import annotations

import numpy as np

from edgeq.formats.blocks import iq4_xs
from edgeq.formats.blocks.base import Bytes, Floats
from edgeq.formats.blocks.nonlinear import nearest_level
from edgeq.formats.blocks.refine.iq4_nl import nearest
from edgeq.formats.blocks.refine.symmetric_search import Search, floats, grid, refine_scales, rounds
from edgeq.formats.effort import Effort

SPAN = (-32, 31)
_FACTORS = floats(
    1, -1.11, 0.93, 1.23, -1.04, 0.97, 0.87, 1.04, -1.15, 1.15, -0.97, -1.07, -0.87, 1.07, -1.19, -1.37
)
_WEIGHTED_FACTORS = floats(
    1, -1.11, 1.23, 0.81, -1.19, -0.9, 0.97, -1.04, 1.04, 0.9, 1.15, 0.76, -1.41, 1.32, -0.81
)
_BEST = Search(
    grid(0.6, 1.6, 60, both_signs=True),
    rounds(2, 1, 1, 0),
    peaks=grid(0.875, 1.125, 9),
    starts=grid(0.85, 1.2, 10),
)
SEARCHES = {
    Effort.normal: Search(_FACTORS, rounds(1, 0), peaks=grid(0.875, 1.125, 9)),
    Effort.best: _BEST,
}
WEIGHTED_SEARCHES = {
    Effort.normal: Search(_WEIGHTED_FACTORS, rounds(1, 0), peaks=grid(0.875, 1.125, 9)),
    Effort.best: _BEST,
}


def refine_blocks(values: Floats, weights: Floats, blocks: Bytes, search: Search) -> Bytes:
    """See the package."""
    d, codes = iq4_xs.unpack_scales(blocks)
    return refine_scales(values, weights, blocks, nearest, SPAN, d, codes, search, _pack)


def _pack(d: np.ndarray, scale_codes: Floats, units: Floats) -> Bytes:
    return iq4_xs.pack(d, (scale_codes + np.float32(32)).astype(np.uint8), nearest_level(units))
