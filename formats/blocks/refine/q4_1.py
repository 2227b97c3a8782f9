"""Refined Q4_1: see ``affine_block``; the layout is described in ``edgeq.formats.blocks.q4_1``."""

from __future__ import annotations

import numpy as np

from edgeq.formats.blocks.base import Bytes, Floats
from edgeq.formats.blocks.packing import pack_nibbles
from edgeq.formats.blocks.q4_1 import FIELDS
from edgeq.formats.blocks.refine.affine_block import Search, refine_range
from edgeq.formats.blocks.refine.affine_search import starts_at, starts_between
from edgeq.formats.effort import Effort

NMAX = 15
SEARCHES = {
    Effort.normal: Search(starts_at((0.5, 0), (0, 0.5), (-1, 0)), steps=2, rounds=2),
    Effort.best: Search(starts_between(-0.5, 3, 0.5), steps=2, rounds=4),
}


def refine_blocks(values: Floats, weights: Floats, blocks: Bytes, search: Search) -> Bytes:
    """Blocks ``[n, 20]`` of less weighted squared error, where there are any."""
    given = blocks.view(FIELDS)[:, 0]
    d, m = given["d"].astype(np.float32), given["m"].astype(np.float32)
    better = refine_range(values, weights, d, m, NMAX, search)
    refined = np.empty(len(blocks), FIELDS)
    refined["d"], refined["m"] = better.d, better.m
    refined["qs"] = pack_nibbles(better.codes)
    return np.where(better.improved[:, None], refined.view(np.uint8).reshape(len(blocks), -1), blocks)
