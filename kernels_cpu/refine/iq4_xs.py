"""Refiner of IQ4_XS: twin of ``edgeq.formats.blocks.refine.iq4_xs``."""

from __future__ import annotations

import numpy as np

from edgeq.formats.blocks.refine.iq4_xs import SPAN
from edgeq.kernels_cpu import simd
from edgeq.kernels_cpu.encode.rounding import store_nibbles
from edgeq.kernels_cpu.jit import helper, kernel
from edgeq.kernels_cpu.refine.levels import UNEVEN
from edgeq.kernels_cpu.refine.super_scales import load_tiles, round_values, scratch, store_scale_codes
from edgeq.kernels_cpu.refine.symmetric_search import search_scales
from edgeq.kernels_cpu.scalar import load_half, store_half


@helper
def _load_scale_codes(block, scale_codes):
    """−32..31, float32 ``[8]``."""
    upper = np.int64(block[2]) | (np.int64(block[3]) << 8)
    for j in range(8):
        low = (np.int64(block[4 + (j >> 1)]) >> ((j & 1) * 4)) & 15
        scale_codes[j] = np.float32((low | (((upper >> (2 * j)) & 3) << 4)) - 32)


@helper
def _store(d, scale_codes, codes, block):
    store_half(block, 0, d)
    upper = 0
    for j in range(8):
        upper |= ((np.int64(scale_codes[j]) + 32) >> 4) << (2 * j)
    block[2], block[3] = np.uint8(upper & 0xFF), np.uint8(upper >> 8)
    for j in range(4):
        low, high = np.int64(scale_codes[2 * j]) + 32, np.int64(scale_codes[2 * j + 1]) + 32
        block[4 + j] = np.uint8((low & 15) | ((high & 15) << 4))
    for j in range(8):
        store_nibbles(codes[32 * j : 32 * j + 32], block, 8 + 16 * j)


@kernel
def refine_rows(first, last, values, weights, encoded, search, isa):
    """See the package."""
    eight, sixteen = simd.resized(isa, 8), simd.resized(isa, 16)
    each = weights.size // 256
    blocks = encoded.reshape(-1, 136)
    memory = scratch(eight)
    tiles, scale_codes, codes, _ = memory
    for b in range(first * each, last * each):
        load_tiles(eight, eight, values, weights, b, memory)
        _load_scale_codes(blocks[b], scale_codes)
        d = load_half(blocks[b], 0)
        start = simd.load(eight, simd.address(scale_codes))
        better, d, found = search_scales(eight, tiles, UNEVEN, SPAN, d, start, search)
        if better:
            store_scale_codes(memory, found)
            round_values(sixteen, UNEVEN, values, b, d, memory)
            _store(d, scale_codes, codes, blocks[b])
