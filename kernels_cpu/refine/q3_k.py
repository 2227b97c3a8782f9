"""Refiner of Q3_K: twin of ``edgeq.formats.blocks.refine.q3_k``."""

from __future__ import annotations

import numpy as np

from edgeq.formats.blocks.refine.q3_k import SPAN
from edgeq.kernels_cpu import simd
from edgeq.kernels_cpu.decode.q3_k import scale_code
from edgeq.kernels_cpu.jit import helper, kernel
from edgeq.kernels_cpu.refine.levels import uniform
from edgeq.kernels_cpu.refine.super_scales import load_tiles, round_values, scratch, store_scale_codes
from edgeq.kernels_cpu.refine.symmetric_search import search_scales
from edgeq.kernels_cpu.scalar import load_half, store_half

_LEVELS = uniform(-4, 3, -4)


@helper
def _store(isa, d, scale_codes, codes, block):
    """Scale codes −32..31 (float32 ``[16]``) and codes 0..7 (uint8 ``[256]``)."""
    store_half(block, 108, d)
    for j in range(8):
        low, high = np.int64(scale_codes[j]) + 32, np.int64(scale_codes[j + 8]) + 32
        block[96 + j] = np.uint8((low & 15) | ((high & 15) << 4))
    for j in range(4):
        bits = 0
        for k in range(4):
            bits |= ((np.int64(scale_codes[j + 4 * k]) + 32) >> 4) << (2 * k)
        block[104 + j] = np.uint8(bits)
    eight = simd.resized(isa, 8)
    source, at = simd.address(codes), simd.address(block)
    mask = simd.splat(eight, 0)
    for part in range(2):
        low = simd.splat(eight, 0)
        for k in range(4):
            q = simd.load_int32(eight, source + 128 * part + 32 * k)
            low = low | ((q & 0x03030303) << (2 * k))
            mask = mask | (((q >> 2) & 0x01010101) << (4 * part + k))
        simd.store(at + 32 + 32 * part, low)
    simd.store(at, mask)


@kernel
def refine_rows(first, last, values, weights, encoded, search, isa):
    """See the package."""
    sixteen = simd.resized(isa, 16)
    each = weights.size // 256
    blocks = encoded.reshape(-1, 110)
    memory = scratch(sixteen)
    tiles, scale_codes, codes, _ = memory
    for b in range(first * each, last * each):
        load_tiles(isa, sixteen, values, weights, b, memory)
        d = load_half(blocks[b], 108)
        for j in range(16):
            scale_codes[j] = np.float32(scale_code(blocks[b], j))
        start = simd.load(sixteen, simd.address(scale_codes))
        better, d, found = search_scales(sixteen, tiles, _LEVELS, SPAN, d, start, search)
        if better:
            store_scale_codes(memory, found)
            round_values(sixteen, _LEVELS, values, b, d, memory)
            _store(isa, d, scale_codes, codes, blocks[b])
