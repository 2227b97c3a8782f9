"""Refiner of Q6_K: twin of ``edgeq.formats.blocks.refine.q6_k``."""

from __future__ import annotations

from edgeq.kernels_cpu import simd
from edgeq.kernels_cpu.encode.q6_k import store_codes
from edgeq.kernels_cpu.jit import kernel
from edgeq.kernels_cpu.refine.levels import uniform
from edgeq.kernels_cpu.refine.super_scales import load_tiles, round_values, scratch, weight_tiles
from edgeq.kernels_cpu.refine.symmetric_search import search_scales
from edgeq.kernels_cpu.scalar import load_half, store_half

_SPAN = (-128, 127)
_LEVELS = uniform(-32, 31, -32)


@kernel
def refine_rows(first, last, values, weights, encoded, search, isa):
    """See the package."""
    sixteen = simd.resized(isa, 16)
    each = weights.size // 256
    blocks = encoded.reshape(-1, 210)
    columns, memory = weight_tiles(isa, sixteen, weights), scratch(sixteen)
    tiles, _, codes, _ = memory
    for b in range(first * each, last * each):
        weight, scales_at = columns[b % each], simd.address(blocks) + 210 * b + 192
        load_tiles(isa, sixteen, values, b, weight, memory)
        start = simd.to_float(simd.to_int32(simd.load_int8(sixteen, scales_at)))
        d = load_half(blocks[b], 208)
        better, d, found = search_scales(
            sixteen, tiles[0], weight, tiles[1], _LEVELS, _SPAN, d, start, search
        )
        if better:
            round_values(sixteen, _LEVELS, values, b, d * found, memory)
            store_codes(isa, codes, blocks[b])
            simd.store(scales_at, simd.to_uint8(simd.to_int32(found)))
            store_half(blocks[b], 208, d)
