"""Refined Q4_K: see ``affine_super_block``; the layout is described in ``edgeq.formats.blocks.q4_k``."""

from __future__ import annotations

from edgeq.formats.blocks.base import Bytes, Floats
from edgeq.formats.blocks.q4_k import assemble
from edgeq.formats.blocks.refine.affine_search import starts_at, starts_between
from edgeq.formats.blocks.refine.affine_super_block import Search, around
from edgeq.formats.blocks.refine.six_bit_scales import TOP, refine_packed
from edgeq.formats.effort import Effort

NMAX = 15
SEARCHES = {
    Effort.normal: Search(
        starts_at((0.75, 0.25), (-1, -1), (-0.25, 0.5), (1.5, 0.25), (0.25, 1.5), (0.5, 0.5)),
        steps=2,
        divisors=around(TOP, -16, 8, 0.5),
        rounds=1,
        sweeps=1,
        reach=1,
    ),
    Effort.best: Search(
        starts_between(-1, 3, 0.4),
        steps=3,
        divisors=around(TOP, -16, 8, 0.25),
        rounds=3,
        sweeps=3,
        reach=2,
    ),
}


def refine_blocks(values: Floats, weights: Floats, blocks: Bytes, search: Search) -> Bytes:
    """Blocks ``[n, 144]`` of less weighted squared error, where there are any."""
    return refine_packed(values, weights, blocks, search, NMAX, assemble)
