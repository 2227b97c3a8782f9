"""Packed 6-bit scales and mins of Q4_K and Q5_K, read into and written from lanes."""

from __future__ import annotations

import numpy as np

from edgeq.formats.blocks.refine.six_bit_scales import TOP as TOP
from edgeq.formats.blocks.super_block import SUB_BLOCKS as SUB_BLOCKS
from edgeq.kernels_cpu.jit import helper
from edgeq.kernels_cpu.refine.affine_super_block import DMIN, SCALES, D
from edgeq.kernels_cpu.scalar import load_half, scale_and_min_codes, store_half

_MINS = SCALES + SUB_BLOCKS


@helper
def load_scales(blocks, first, last, stored):
    """Block first + lane into each lane of ``stored``; lanes beyond ``last`` repeat the last block."""
    for lane in range(stored.shape[1]):
        block = blocks[min(first + lane, last - 1)]
        stored[D, lane], stored[DMIN, lane] = load_half(block, 0), load_half(block, 2)
        for j in range(SUB_BLOCKS):
            scale, low = scale_and_min_codes(block, 4, j)
            stored[SCALES + j, lane], stored[_MINS + j, lane] = np.float32(scale), np.float32(low)


@helper
def store_scales(block, lane, stored):
    """The first 16 bytes of a block."""
    store_half(block, 0, stored[D, lane])
    store_half(block, 2, stored[DMIN, lane])
    for j in range(4):
        low_scale, high_scale = np.int64(stored[SCALES + j, lane]), np.int64(stored[SCALES + j + 4, lane])
        low_min, high_min = np.int64(stored[_MINS + j, lane]), np.int64(stored[_MINS + j + 4, lane])
        block[4 + j] = np.uint8(low_scale | (high_scale >> 4 << 6))
        block[8 + j] = np.uint8(low_min | (high_min >> 4 << 6))
        block[12 + j] = np.uint8((high_scale & 15) | ((high_min & 15) << 4))
