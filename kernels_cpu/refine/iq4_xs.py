"""Refiner of IQ4_XS: twin of ``edgeq.formats.blocks.refine.iq4_xs``."""

from __future__ import annotations

import numpy as np

from edgeq.kernels_cpu import simd
from edgeq.kernels_cpu.encode.rounding import store_nibbles
from edgeq.kernels_cpu.jit import helper, kernel
from edgeq.kernels_cpu.refine.levels import UNEVEN
from edgeq.kernels_cpu.refine.super_scales import load_tiles, round_values, scratch, weight_tiles
from edgeq.kernels_cpu.refine.symmetric_search import search_scales
from edgeq.kernels_cpu.scalar import load_half, store_half

_SPAN = (-32, 31)


@helper
def _load_scale_codes(block, scale_codes):
    """−32..31, float32 ``[8]``."""
    upper = np.int64(block[2]) | (np.int64(block[3]) << 8)
    for j in range(8):
        low = (np.int64(block[4 + (j >> 1)]) >> ((j & 1) * 4)) & 15
        scale_codes[j] = np.float32((low | (((upper >> (2 * j)) & 3) << 4)) - 32)


@helper
def _store(d, scale_codes, codes, block):
    """Scale codes −32..31 (int32 vector) and codes 0..15 (uint8 ``[256]``)."""
    store_half(block, 0, d)
    upper = 0
    for j in range(8):
        shifted = np.int64(simd.lane(scale_codes, j)) + 32
        upper |= (shifted >> 4) << (2 * j)
        low = shifted & 15
        at = 4 + (j >> 1)
        block[at] = np.uint8(low if j % 2 == 0 else np.int64(block[at]) | (low << 4))
    block[2], block[3] = np.uint8(upper & 0xFF), np.uint8(upper >> 8)
    for j in range(8):
        store_nibbles(codes[32 * j : 32 * j + 32], block, 8 + 16 * j)


@kernel
def refine_rows(first, last, values, weights, encoded, search, isa):
    """See the package."""
    eight, sixteen = simd.resized(isa, 8), simd.resized(isa, 16)
    each = weights.size // 256
    blocks = encoded.reshape(-1, 136)
    columns, memory = weight_tiles(eight, eight, weights), scratch(eight)
    tiles, row, codes, _ = memory
    for b in range(first * each, last * each):
        weight = columns[b % each]
        load_tiles(eight, eight, values, b, weight, memory)
        _load_scale_codes(blocks[b], row)
        d, start = load_half(blocks[b], 0), simd.load(eight, simd.address(row))
        better, d, found = search_scales(eight, tiles[0], weight, tiles[1], UNEVEN, _SPAN, d, start, search)
        if better:
            round_values(sixteen, UNEVEN, values, b, d * found, memory)
            _store(d, simd.to_int32(found), codes, blocks[b])
