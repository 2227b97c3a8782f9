"""Encoder of Q3_K: twin of ``edgeq.formats.blocks.q3_k``, where the layout is described.

As many super-blocks as lanes are encoded together, one per lane, as in ``super_block``.
"""

from __future__ import annotations

import numpy as np

from edgeq.kernels_cpu import simd
from edgeq.kernels_cpu.encode.lane_search import search_symmetric_scale, signed_peak
from edgeq.kernels_cpu.encode.lane_weights import importance_weights, sum_of_squares
from edgeq.kernels_cpu.encode.moves import moved_codes, search_by_moves
from edgeq.kernels_cpu.encode.tiles import (
    REGISTERS,
    block_addresses,
    load,
    load_int32,
    load_super_tile,
    load_tile,
    store,
    vectors,
)
from edgeq.kernels_cpu.encode.two_bits import store_third_bits, store_two_bits
from edgeq.kernels_cpu.half_floats import from_half, to_half
from edgeq.kernels_cpu.jit import helper, kernel
from edgeq.kernels_cpu.scalar import ZERO

TAKES_ISA = True
_NMAX = 4
_SCALE_NMAX = 32
_ONE = np.float32(1)
_TWO = np.float32(2)
_LEVELS = np.float32(-32)
_SUPER_VALUES = np.float32(256)
_INFINITY = np.float32(np.inf)


@helper
def _search_weighted(isa, wide, values, importance, first, last, tiles, scales, starts, totals):
    """Scales ``[16, lanes]`` of the sub-blocks, their inverses in starts[:, 0], and the sums of weights."""
    tile, weights, weighted, found = tiles[0], tiles[1], tiles[2], tiles[3]
    addresses, importances = np.empty(tile.shape[1], np.int64), np.empty(tile.shape[1], np.int64)
    block_addresses(values, first, last, 256, last, addresses)
    block_addresses(importance, first, last, 256, importance.size // 256, importances)
    sigma2 = _TWO * sum_of_squares(isa, wide, addresses, 256, tile) / _SUPER_VALUES
    for sub in range(16):
        load_super_tile(isa, addresses, 16 * sub, tile)
        load_tile(isa, importances, 16 * sub, weights)
        store(wide, totals, sub, importance_weights(wide, tile, sigma2, weights))
        for i in range(16):
            store(wide, weighted, i, load(wide, weights, i) * load(wide, tile, i))
        search_symmetric_scale(wide, tile, weights, weighted, _NMAX, found)
        store(wide, scales, sub, load(wide, found, 0))
        store(wide, starts[sub], 0, load(wide, found, 1))


@helper
def _all_finite(wide, scales):
    finite = simd.splat(wide, ZERO) == ZERO
    for sub in range(16):
        finite = finite & (abs(load(wide, scales, sub)) < _INFINITY)
    return simd.all_of(finite)


@helper
def _round_scales(wide, scales, codes):
    """Codes −32..31 (int32 ``[16, lanes]``) by the largest scale of each lane; returns their scale."""
    peak = signed_peak(wide, scales)
    zero = peak == ZERO
    inverse = _LEVELS / peak
    _store_scale_codes(wide, scales, inverse, zero, codes)
    return simd.select(zero, ZERO, _ONE / inverse)


@helper
def _fit_scales(wide, scales, totals, tiles, codes):
    """The same by least squares weighted by totals ``[16, lanes]``."""
    weighted, best = tiles[0], tiles[1]
    for sub in range(16):
        store(wide, weighted, sub, load(wide, totals, sub) * load(wide, scales, sub))
    search_symmetric_scale(wide, scales, totals, weighted, _SCALE_NMAX, best)
    inverse = load(wide, best, 1)
    _store_scale_codes(wide, scales, inverse, inverse == ZERO, codes)
    return load(wide, best, 0)


@helper
def _store_scale_codes(wide, scales, inverse, zero, codes):
    for sub in range(16):
        code = simd.nearest(inverse * load(wide, scales, sub))
        code = simd.minimum(simd.maximum(code, -_SCALE_NMAX), _SCALE_NMAX - 1)
        store(wide, codes, sub, simd.select(zero, -_SCALE_NMAX, code))


@helper
def _decode_scales(wide, d, scale_codes, halves, scales):
    """The float16 bits of d, and the scales ``[16, lanes]`` as a decoder sees them; False on overflow."""
    half = to_half(wide, d)
    store(wide, halves, 0, half)
    for sub in range(16):
        store(wide, scales, sub, from_half(wide, half) * simd.to_float(load_int32(wide, scale_codes, sub)))
    return simd.all_of((half & 0x7C00) != 0x7C00)


@helper
def _searched_codes(sixteen, at, inverse, sum_lx, sum_l2):
    """The codes of the search (0 is −nmax) for the sub-block at an address, whose scale is stored as zero."""
    if inverse == ZERO:
        return simd.splat(sixteen, -_NMAX)
    if sum_l2 == ZERO:  # under importance
        code = simd.nearest(simd.load(sixteen, at) * inverse)
        return simd.minimum(simd.maximum(code, -_NMAX), _NMAX - 1)
    codes, _, _ = moved_codes(sixteen, at, inverse, sum_lx, sum_l2, _NMAX)
    return simd.to_int32(codes)


@helper
def _round_codes(sixteen, x, lane, scales, starts, codes):
    """Codes 0..7 (uint8) of the super-block at an address with the scales as stored."""
    for sub in range(16):
        scale, at = scales[sub, lane], x + 64 * sub
        if scale == ZERO:
            code = _searched_codes(
                sixteen, at, starts[sub, 0, lane], starts[sub, 1, lane], starts[sub, 2, lane]
            )
        else:
            code = simd.nearest(simd.load(sixteen, at) / scale)
            code = simd.minimum(simd.maximum(code, -_NMAX), _NMAX - 1)
        simd.store(simd.address(codes) + 16 * sub, simd.to_uint8(code + _NMAX))


@helper
def _store_scales(scale_codes, lane, block):
    """The packed scales of one lane's super-block."""
    for j in range(4):
        high = 0
        for k in range(4):
            high |= ((scale_codes[j + 4 * k, lane] + 32) >> 4) << (2 * k)
        block[104 + j] = np.uint8(high)
    for j in range(8):
        low, upper = scale_codes[j, lane] + 32, scale_codes[j + 8, lane] + 32
        block[96 + j] = np.uint8((low & 15) | ((upper & 15) << 4))


@helper
def _finish(isa, wide, values, first, last, d, memory, out):
    _, scales, starts, _, _, scale_codes, halves, codes = memory
    sixteen = simd.resized(isa, 16)
    fine = _all_finite(wide, scales) & _decode_scales(wide, d, scale_codes, halves, scales)
    for lane in range(min(simd.lanes_of(wide), last - first)):
        block = out[first + lane]
        _round_codes(sixteen, simd.address(values) + 1024 * (first + lane), lane, scales, starts, codes)
        store_third_bits(isa, codes, simd.address(block))
        store_two_bits(isa, codes, simd.address(block) + 32)
        _store_scales(scale_codes, lane, block)
        simd.store_int16(simd.address(block) + 108, halves[0, lane])
    return fine


@helper
def _scratch(wide):
    """Tiles, scales, what the search started from, weights, a list, scale codes, halves, codes."""
    lanes = simd.lanes_of(wide)
    tiles, starts = vectors(wide, 64).reshape(4, 16, lanes), vectors(wide, 48).reshape(16, 3, lanes)
    starts[:] = ZERO
    listed = np.empty(16 * lanes + 1, np.int32)
    scale_codes, halves = np.empty((16, lanes), np.int32), np.empty((1, lanes), np.int32)
    return (
        tiles,
        vectors(wide, 16),
        starts,
        vectors(wide, 16),
        listed,
        scale_codes,
        halves,
        np.empty(256, np.uint8),
    )


@kernel
def encode_blocks(first, last, values, out, isa):
    """Blocks first..last of float32 ``[n, 256]``, weighted by x²; False when a scale overflows float16."""
    wide = simd.widened(isa, REGISTERS)
    memory = _scratch(wide)
    tiles, scales, starts, _, listed, scale_codes, _, _ = memory
    addresses = np.empty(simd.lanes_of(wide), np.int64)
    fine = True
    for b in range(first, last, simd.lanes_of(wide)):
        block_addresses(values, b, last, 256, last, addresses)
        search_by_moves(isa, wide, addresses, _NMAX, tiles, scales, starts, listed)
        d = _round_scales(wide, scales, scale_codes)
        fine &= _finish(isa, wide, values, b, last, d, memory, out)
    return fine


@kernel
def encode_rows(first, last, values, importance, out, isa):
    """Rows first..last of float32 ``[rows, columns]`` under importance ``[columns]``."""
    wide = simd.widened(isa, REGISTERS)
    memory = _scratch(wide)
    tiles, scales, starts, totals, _, scale_codes, _, _ = memory
    each = importance.size // 256
    flat, blocks = values.reshape(-1, 256), out.reshape(-1, 110)
    fine = True
    for b in range(first * each, last * each, simd.lanes_of(wide)):
        _search_weighted(isa, wide, flat, importance, b, last * each, tiles, scales, starts, totals)
        d = _fit_scales(wide, scales, totals, tiles, scale_codes)
        fine &= _finish(isa, wide, flat, b, last * each, d, memory, blocks)
    return fine
