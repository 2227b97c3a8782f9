"""Refiner of MXFP4: its layout is described in ``edgeq.formats.blocks.mxfp4``."""

from __future__ import annotations

import numpy as np

from edgeq.formats.blocks import mxfp4
from edgeq.formats.blocks.base import Bytes, Floats
from edgeq.formats.blocks.refine.symmetric_search import LOWER, error_of, floats, in_columns
from edgeq.formats.effort import Effort

# How far from the encoder's exponent is looked; ggml's is that of the largest value, whatever the others are.
SEARCHES = {Effort.normal: 1, Effort.best: 2}
_MIDDLES = floats(0.5, 1.5, 2.5, 3.5, 5, 7, 10)
_LARGEST = 254  # 255 is NaN


def refine_blocks(values: Floats, weights: Floats, blocks: Bytes, search: int) -> Bytes:
    """See the package. ``search`` is how many exponents to either side are tried."""
    x, columns = in_columns(values, 1), in_columns(weights, 1)

    def error(e: Bytes) -> Floats:
        return error_of(x, columns, _levels, mxfp4.half_power_of_two(e)[:, None])[:, 0]

    first = blocks[:, 0]
    limit = error(first) * LOWER
    best, best_e = limit, first
    for step in range(1, search + 1):
        for move in (step, -step):
            e = np.clip(first.astype(np.int64) + move, 0, _LARGEST).astype(np.uint8)
            trial = error(e)
            better = trial < best
            best, best_e = np.where(better, trial, best), np.where(better, e, best_e)
    better = (best < limit) & np.isfinite(limit)
    packed = mxfp4.pack(best_e, mxfp4.nearest_codes(values, mxfp4.half_power_of_two(best_e)))
    return np.where(better[:, None], packed, blocks)


def _levels(x: Floats) -> Floats:
    """The nearest level, of two equally near ones the smaller."""
    return np.copysign(mxfp4.LEVELS[np.searchsorted(_MIDDLES, np.abs(x))], x)
