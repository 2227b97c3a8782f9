"""What refining Q4_K and Q5_K shares: eight sub-blocks, 6-bit scales and mins, the same first 16 bytes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from edgeq.formats.blocks.base import Bytes, Floats
from edgeq.formats.blocks.packing import pack_scales_and_mins, unpack_scales_and_mins
from edgeq.formats.blocks.refine.affine_super_block import (
    Scales,
    Search,
    by_sub_blocks,
    codes_of,
    refine_scales,
)
from edgeq.formats.blocks.super_block import SUB_BLOCKS, Encoded

TOP = 63


def refine_packed(
    values: Floats,
    weights: Floats,
    blocks: Bytes,
    search: Search,
    nmax: int,
    assemble: Callable[[Encoded], Bytes],
) -> Bytes:
    """Blocks of less error where there are any, else those given; ``assemble`` is the type's."""
    x = by_sub_blocks(values, SUB_BLOCKS)
    better, improved = refine_scales(
        x, by_sub_blocks(weights, SUB_BLOCKS), _unpack(blocks), nmax, TOP, search
    )
    scales, mins = (integers.T.astype(np.uint8) for integers in (better.scales, better.mins))
    halves = better.d.astype(np.float16), better.dmin.astype(np.float16)
    refined = assemble(Encoded(*halves, pack_scales_and_mins(scales, mins), codes_of(x, better, nmax)))
    return np.where(improved[:, None], refined, blocks)


def _unpack(blocks: Bytes) -> Scales:
    d, dmin = np.ascontiguousarray(blocks[:, :4]).view("<f2").astype(np.float32).T
    scales, mins = unpack_scales_and_mins(blocks[:, 4:16])
    return Scales(d, dmin, *(np.ascontiguousarray(a.T, np.float32) for a in (scales, mins)))
