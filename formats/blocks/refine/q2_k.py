"""Refined Q2_K: see ``affine_super_block``; the layout is described in ``edgeq.formats.blocks.q2_k``."""

from __future__ import annotations

import numpy as np

from edgeq.formats.blocks.base import Bytes, Floats
from edgeq.formats.blocks.packing import pack_two_bits
from edgeq.formats.blocks.q2_k import FIELDS
from edgeq.formats.blocks.refine.affine_search import starts_at, starts_between
from edgeq.formats.blocks.refine.affine_super_block import (
    Scales,
    Search,
    around,
    by_sub_blocks,
    codes_of,
    refine_scales,
)
from edgeq.formats.effort import Effort

NMAX = 3
TOP = 15
SUB_BLOCKS = 16
SEARCHES = {
    Effort.normal: Search(
        starts_at((0.7, 0.2), (0.1, 0.8), (0.4, 0.5), (1.1, 0.1), (0.1, 1.2)),
        steps=2,
        divisors=around(TOP, -4, 4, 0.5),
        rounds=1,
        sweeps=1,
        reach=1,
    ),
    Effort.best: Search(
        starts_between(-0.5, 1.1, 0.2),
        steps=3,
        divisors=around(TOP, -6, 6, 0.125),
        rounds=3,
        sweeps=3,
        reach=3,
    ),
}


def refine_blocks(values: Floats, weights: Floats, blocks: Bytes, search: Search) -> Bytes:
    """Blocks ``[n, 84]`` of less weighted squared error, where there are any."""
    given = blocks.view(FIELDS)[:, 0]
    integers = (np.ascontiguousarray(a.T, np.float32) for a in (given["scales"] & 15, given["scales"] >> 4))
    stored = Scales(given["d"].astype(np.float32), given["dmin"].astype(np.float32), *integers)
    x = by_sub_blocks(values, SUB_BLOCKS)
    better, improved = refine_scales(x, by_sub_blocks(weights, SUB_BLOCKS), stored, NMAX, TOP, search)
    refined = np.empty(len(blocks), FIELDS)
    refined["d"], refined["dmin"] = better.d, better.dmin
    scales, mins = (whole.T.astype(np.uint8) for whole in (better.scales, better.mins))
    refined["scales"] = scales | (mins << 4)
    refined["qs"] = pack_two_bits(codes_of(x, better, NMAX).reshape(len(blocks), -1))
    return np.where(improved[:, None], refined.view(np.uint8).reshape(len(blocks), -1), blocks)
