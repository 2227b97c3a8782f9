"""Refiner of Q6_K: twin of ``edgeq.formats.blocks.refine.q6_k``."""

from __future__ import annotations

import numpy as np

from edgeq.formats.blocks.refine.q6_k import SPAN
from edgeq.kernels_cpu import simd
from edgeq.kernels_cpu.encode.q6_k import store_codes
from edgeq.kernels_cpu.jit import kernel
from edgeq.kernels_cpu.refine.levels import uniform
from edgeq.kernels_cpu.refine.super_scales import load_tiles, round_values, scratch, store_scale_codes
from edgeq.kernels_cpu.refine.symmetric_search import search_scales
from edgeq.kernels_cpu.scalar import load_half, store_half

_LEVELS = uniform(-32, 31, -32)


@kernel
def refine_rows(first, last, values, weights, encoded, search, isa):
    """See the package."""
    sixteen = simd.resized(isa, 16)
    each = weights.size // 256
    blocks = encoded.reshape(-1, 210)
    memory = scratch(sixteen)
    tiles, scale_codes, codes, _ = memory
    for b in range(first * each, last * each):
        load_tiles(isa, sixteen, values, weights, b, memory)
        d = load_half(blocks[b], 208)
        for j in range(16):
            scale_codes[j] = np.float32(np.int8(blocks[b, 192 + j]))
        start = simd.load(sixteen, simd.address(scale_codes))
        better, d, found = search_scales(sixteen, tiles, _LEVELS, SPAN, d, start, search)
        if better:
            store_scale_codes(memory, found)
            round_values(sixteen, _LEVELS, values, b, d, memory)
            store_codes(isa, codes, blocks[b])
            for j in range(16):
                blocks[b, 192 + j] = np.uint8(np.int64(scale_codes[j]) & 0xFF)
            store_half(blocks[b], 208, d)
