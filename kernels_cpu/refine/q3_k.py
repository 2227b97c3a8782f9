"""Refiner of Q3_K: twin of ``edgeq.formats.blocks.refine.q3_k``."""

from __future__ import annotations

from edgeq.kernels_cpu import simd
from edgeq.kernels_cpu.jit import helper, kernel
from edgeq.kernels_cpu.refine.levels import uniform
from edgeq.kernels_cpu.refine.super_scales import load_tiles, round_values, scratch, weight_tiles
from edgeq.kernels_cpu.refine.symmetric_search import search_scales
from edgeq.kernels_cpu.scalar import load_half, store_half

_SPAN = (-32, 31)
_LEVELS = uniform(-4, 3, -4)


@helper
def _scale_codes(isa, at, scratch):
    """−32..31 of the block at an address, float32; four codes to a word. ``scratch`` has 16 bytes."""
    words = simd.load_int32(simd.resized(isa, 4), at + 92)
    low, upper, high = simd.lane(words, 1), simd.lane(words, 2), simd.lane(words, 3)
    simd.store_int32(scratch, (low & 0x0F0F0F0F) | ((high & 0x03030303) << 4))
    simd.store_int32(scratch + 4, (upper & 0x0F0F0F0F) | (((high >> 2) & 0x03030303) << 4))
    simd.store_int32(scratch + 8, ((low >> 4) & 0x0F0F0F0F) | (((high >> 4) & 0x03030303) << 4))
    simd.store_int32(scratch + 12, ((upper >> 4) & 0x0F0F0F0F) | (((high >> 6) & 0x03030303) << 4))
    return simd.to_float(simd.to_int32(simd.load_uint8(simd.resized(isa, 16), scratch)) - 32)


@helper
def _store_scale_codes(isa, at, codes, scratch):
    """The way back."""
    simd.store(scratch, simd.to_uint8(simd.to_int32(codes) + 32))
    words = simd.load_int32(simd.resized(isa, 4), scratch)
    a, b, c, d = simd.lane(words, 0), simd.lane(words, 1), simd.lane(words, 2), simd.lane(words, 3)
    simd.store_int32(at + 96, (a & 0x0F0F0F0F) | ((c & 0x0F0F0F0F) << 4))
    simd.store_int32(at + 100, (b & 0x0F0F0F0F) | ((d & 0x0F0F0F0F) << 4))
    high = ((a >> 4) & 0x03030303) | (((b >> 4) & 0x03030303) << 2)
    simd.store_int32(at + 104, high | (((c >> 4) & 0x03030303) << 4) | (((d >> 4) & 0x03030303) << 6))


@helper
def _store_codes(isa, at, codes):
    """Codes 0..7 (uint8 ``[256]``) to hmask and qs of the block at an address."""
    eight = simd.resized(isa, 8)
    source = simd.address(codes)
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
    columns, memory = weight_tiles(isa, sixteen, weights), scratch(sixteen)
    tiles, _, codes, _ = memory
    for b in range(first * each, last * each):
        weight, at = columns[b % each], simd.address(blocks) + 110 * b
        load_tiles(isa, sixteen, values, b, weight, memory)
        start = _scale_codes(isa, at, simd.address(codes))
        d = load_half(blocks[b], 108)
        better, d, found = search_scales(
            sixteen, tiles[0], weight, tiles[1], _LEVELS, _SPAN, d, start, search
        )
        if better:
            round_values(sixteen, _LEVELS, values, b, d * found, memory)
            _store_codes(isa, at, codes)
            _store_scale_codes(isa, at, found, simd.address(codes))
            store_half(blocks[b], 108, d)
