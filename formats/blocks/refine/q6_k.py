"""Refiner of Q6_K: its layout is described in ``edgeq.formats.blocks.q6_k``."""

from __future__ import annotations

import numpy as np

from edgeq.formats.blocks import q6_k
from edgeq.formats.blocks.base import Bytes, Floats
from edgeq.formats.blocks.refine.symmetric_search import Search, floats, grid, refine_scales, rounds, uniform
from edgeq.formats.effort import Effort

SPAN = (-128, 127)
LEVELS = uniform(-32, 31)
_FACTORS = floats(1, 1.069, 1.038, 1.102, 1.143, 0.964, 1.187, 1.232, 1.053, 0.993)
SEARCHES = {
    Effort.normal: Search(_FACTORS, rounds(1), peaks=grid(0.88, 1.12, 5)),
    Effort.best: Search(
        grid(0.88, 1.3, 100), rounds(2, 1, 1, 0), peaks=grid(0.875, 1.125, 9), starts=grid(0.85, 1.2, 10)
    ),
}


def refine_blocks(values: Floats, weights: Floats, blocks: Bytes, search: Search) -> Bytes:
    """See the package."""
    d, codes = q6_k.unpack_scales(blocks)
    return refine_scales(values, weights, blocks, LEVELS, SPAN, d, codes, search, _pack)


def _pack(d: np.ndarray, scale_codes: Floats, units: Floats) -> Bytes:
    codes = (LEVELS(units) + np.float32(32)).astype(np.uint8)
    return q6_k.pack(d, scale_codes.astype(np.int8), codes)
