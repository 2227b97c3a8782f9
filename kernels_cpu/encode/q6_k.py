"""Encoder of Q6_K: twin of ``edgeq.formats.blocks.q6_k``, where the layout is described.

As many super-blocks as lanes are encoded together, one per lane, as in ``super_block``.
"""

from __future__ import annotations

import numpy as np

from edgeq.kernels_cpu import simd
from edgeq.kernels_cpu.encode.lane_search import search_symmetric_scale
from edgeq.kernels_cpu.encode.tiles import (
    REGISTERS,
    block_addresses,
    load,
    load_super_tile,
    load_tile,
    store,
    vectors,
)
from edgeq.kernels_cpu.half_floats import to_half
from edgeq.kernels_cpu.jit import helper, kernel
from edgeq.kernels_cpu.scalar import ZERO, half_to_float

TAKES_ISA = True
_NMAX = 32
_ONE = np.float32(1)
_LEVELS = np.float32(-128)
_ZERO_BLOCK = np.float32(1e-15)  # GROUP_MAX_EPS
_INFINITY = np.float32(np.inf)


@helper
def _search(isa, wide, values, first, last, tiles, found):
    """Scales of the 16 sub-blocks, weighted by x²; ``found`` is ``[16, 2, lanes]``."""
    tile, weights, weighted = tiles[0], tiles[1], tiles[2]
    addresses = np.empty(tile.shape[1], np.int64)
    block_addresses(values, first, last, 256, last, addresses)
    for sub in range(16):
        load_super_tile(isa, addresses, 16 * sub, tile)
        for i in range(16):
            x = load(wide, tile, i)
            store(wide, weights, i, x * x)
            store(wide, weighted, i, (x * x) * x)
        search_symmetric_scale(wide, tile, weights, weighted, _NMAX, found[sub])


@helper
def _search_weighted(isa, wide, values, importance, first, last, tiles, found):
    """The same, weighted by importance ``[columns]``."""
    tile, weights, weighted = tiles[0], tiles[1], tiles[2]
    addresses, importances = np.empty(tile.shape[1], np.int64), np.empty(tile.shape[1], np.int64)
    block_addresses(values, first, last, 256, last, addresses)
    block_addresses(importance, first, last, 256, importance.size // 256, importances)
    for sub in range(16):
        load_super_tile(isa, addresses, 16 * sub, tile)
        load_tile(isa, importances, 16 * sub, weights)
        for i in range(16):
            store(wide, weighted, i, load(wide, weights, i) * load(wide, tile, i))
        search_symmetric_scale(wide, tile, weights, weighted, _NMAX, found[sub])


@helper
def _round_scales(wide, found, codes, halves):
    """8-bit codes (int32 ``[16, lanes]``) and float16 bits of the scale, 0 in lanes of zeros.

    False when the scale overflows float16.
    """
    peak, magnitude = simd.splat(wide, ZERO), simd.splat(wide, ZERO)
    finite = magnitude == ZERO
    for sub in range(16):
        scale = load(wide, found[sub], 0)
        finite = finite & (abs(scale) < _INFINITY)
        larger = abs(scale) > magnitude
        peak = simd.select(larger, scale, peak)
        magnitude = simd.select(larger, abs(scale), magnitude)
    zero = magnitude < _ZERO_BLOCK
    inverse = simd.select(zero, ZERO, _LEVELS / peak)
    for sub in range(16):
        code = simd.nearest(inverse * load(wide, found[sub], 0))
        store(wide, codes, sub, simd.minimum(code, 127))
    half = to_half(wide, simd.select(zero, ZERO, _ONE / inverse))
    store(wide, halves, 0, half)
    return simd.all_of(finite & ((half & 0x7C00) != 0x7C00))


@helper
def _round_codes(isa, values, b, lane, found, scale_codes, half, codes):
    """Codes 0..63 (uint8 ``[256]``) of super-block b with the scales as stored, or else the search's."""
    sixteen = simd.resized(isa, 16)
    d = half_to_float(half)
    x, out = simd.address(values) + 1024 * b, simd.address(codes)
    for sub in range(16):
        # The stored byte counts: a code below −128 would wrap in it.
        scale = d * np.float32(np.int8(scale_codes[sub, lane]))
        value, inverse = simd.load(sixteen, x + 64 * sub), found[sub, 1, lane]
        if scale != ZERO:
            code = simd.nearest(value / scale)
        else:
            code = simd.nearest(value * inverse) if inverse != ZERO else simd.splat(sixteen, -_NMAX)
        code = simd.minimum(simd.maximum(code, -_NMAX), _NMAX - 1) + _NMAX
        simd.store(out + 16 * sub, simd.to_uint8(code))


@helper
def store_codes(isa, codes, block):
    """Codes 0..63 (uint8 ``[256]``) to ql and qh."""
    eight = simd.resized(isa, 8)
    at, block_at = simd.address(codes), simd.address(block)
    for part in range(2):
        q0, q1 = simd.load_int32(eight, at + part * 128), simd.load_int32(eight, at + part * 128 + 32)
        q2, q3 = simd.load_int32(eight, at + part * 128 + 64), simd.load_int32(eight, at + part * 128 + 96)
        simd.store(block_at + part * 64, (q0 & 0x0F0F0F0F) | ((q2 & 0x0F0F0F0F) << 4))
        simd.store(block_at + part * 64 + 32, (q1 & 0x0F0F0F0F) | ((q3 & 0x0F0F0F0F) << 4))
        high = ((q0 >> 4) & 0x03030303) | (((q1 >> 4) & 0x03030303) << 2)
        high = high | (((q2 >> 4) & 0x03030303) << 4) | (((q3 >> 4) & 0x03030303) << 6)
        simd.store(block_at + 128 + part * 32, high)


@helper
def _store(isa, lane, scale_codes, half, codes, block):
    """ql, qh, scales and d."""
    store_codes(isa, codes, block)
    for sub in range(16):
        block[192 + sub] = np.uint8(scale_codes[sub, lane] & 0xFF)
    block[208] = np.uint8(half & 0xFF)
    block[209] = np.uint8(half >> 8)


@helper
def _finish(isa, wide, values, first, last, found, scale_codes, halves, codes, out):
    fine = _round_scales(wide, found, scale_codes, halves)
    for lane in range(min(scale_codes.shape[1], last - first)):
        block, half = out[first + lane], halves[0, lane]
        if half == 0 and scale_codes[0, lane] == 0 and _is_zero(found, lane):
            block[:] = np.uint8(0)
            continue
        _round_codes(isa, values, first + lane, lane, found, scale_codes, half, codes)
        _store(isa, lane, scale_codes, half, codes, block)
    return fine


@helper
def _is_zero(found, lane):
    """No scale of this lane's reaches GROUP_MAX_EPS: ggml writes a block of zero bytes."""
    largest = ZERO
    for sub in range(16):
        largest = max(largest, abs(found[sub, 0, lane]))
    return largest < _ZERO_BLOCK


@helper
def _scratch(wide):
    lanes = simd.lanes_of(wide)
    tiles, found = vectors(wide, 48).reshape(3, 16, lanes), vectors(wide, 32).reshape(16, 2, lanes)
    return (
        tiles,
        found,
        np.empty((16, lanes), np.int32),
        np.empty((1, lanes), np.int32),
        np.empty(256, np.uint8),
    )


@kernel
def encode_blocks(first, last, values, out, isa):
    """Blocks first..last of float32 ``[n, 256]``, weighted by x²; False when a scale overflows float16."""
    wide = simd.widened(isa, REGISTERS)
    tiles, found, scale_codes, halves, codes = _scratch(wide)
    fine = True
    for b in range(first, last, simd.lanes_of(wide)):
        _search(isa, wide, values, b, last, tiles, found)
        fine &= _finish(isa, wide, values, b, last, found, scale_codes, halves, codes, out)
    return fine


@kernel
def encode_rows(first, last, values, importance, out, isa):
    """Rows first..last of float32 ``[rows, columns]`` under importance ``[columns]``."""
    wide = simd.widened(isa, REGISTERS)
    tiles, found, scale_codes, halves, codes = _scratch(wide)
    each = importance.size // 256
    flat, blocks = values.reshape(-1, 256), out.reshape(-1, 210)
    fine = True
    for b in range(first * each, last * each, simd.lanes_of(wide)):
        _search_weighted(isa, wide, flat, importance, b, last * each, tiles, found)
        fine &= _finish(isa, wide, flat, b, last * each, found, scale_codes, halves, codes, blocks)
    return fine
