"""Refiner of Q3_K: its layout is described in ``edgeq.formats.blocks.q3_k``."""

from __future__ import annotations

import numpy as np

from edgeq.formats.blocks import q3_k
from edgeq.formats.blocks.base import Bytes, Floats
from edgeq.formats.blocks.refine.symmetric_search import Search, floats, grid, refine_scales, rounds, uniform
from edgeq.formats.effort import Effort

SPAN = (-32, 31)
LEVELS = uniform(-4, 3)
_FACTORS = floats(0.948, 0.852, -1.216, 1.018, 0.713)
_WEIGHTED_FACTORS = floats(
    0.98, -0.77, 0.71, 0.85, -0.92, 0.58, -0.66, 1.02, 0.92, 1.5, 0.79, -0.54, -0.82, 0.64, 0.5, 1.73
)
_BEST = Search(
    grid(0.45, 2.2, 40, both_signs=True),
    rounds(2, 1, 1, 0),
    peaks=grid(0.875, 1.125, 9),
    starts=grid(0.85, 1.2, 10),
)
SEARCHES = {
    Effort.normal: Search(_FACTORS, rounds(0), peaks=grid(0.88, 1.12, 5)),
    Effort.best: _BEST,
}
WEIGHTED_SEARCHES = {
    Effort.normal: Search(_WEIGHTED_FACTORS, rounds(1, 0), peaks=grid(0.875, 1.125, 9)),
    Effort.best: _BEST,
}


def refine_blocks(values: Floats, weights: Floats, blocks: Bytes, search: Search) -> Bytes:
    """See the package."""
    d, codes = q3_k.unpack_scales(blocks)
    return refine_scales(values, weights, blocks, LEVELS, SPAN, d, codes, search, _pack)


def _pack(d: np.ndarray, scale_codes: Floats, units: Floats) -> Bytes:
    shifted = (scale_codes + np.float32(32)).astype(np.uint8)
    return q3_k.pack(d, shifted, (LEVELS(units) + np.float32(4)).astype(np.uint8))
