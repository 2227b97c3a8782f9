"""Refined Q5_K: see ``affine_super_block``; the layout is described in ``edgeq.formats.blocks.q5_k``."""

from __future__ import annotations

import numpy as np

from edgeq.formats.blocks.base import Bytes, Floats
from edgeq.formats.blocks.q5_k import assemble
from edgeq.formats.blocks.refine.affine_super_block import Search
from edgeq.formats.blocks.refine.six_bit_scales import TOP, refine_packed
from edgeq.formats.effort import Effort

NMAX = 31
_STARTS = [(0.5, -0.5), (-0.5, -0.25), (0.5, 0), (0.25, 0.75), (-0.5, -0.5), (-0.5, 0.25)]
SEARCHES = {
    Effort.normal: Search(np.array(_STARTS, np.float32), 2, np.arange(TOP - 16, TOP + 8, 0.5, np.float32), 3),
    Effort.best: Search(np.array(_STARTS, np.float32), 3, np.arange(TOP - 16, TOP + 8, 0.25, np.float32), 5),
}


def refine_blocks(values: Floats, weights: Floats, blocks: Bytes, search: Search) -> Bytes:
    """Blocks ``[n, 176]`` of less weighted squared error, where there are any."""
    return refine_packed(values, weights, blocks, search, NMAX, assemble)
