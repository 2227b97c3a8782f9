"""Encoder of Q3_K: twin of ``edgeq.formats.blocks.q3_k``, where the layout is described.

As many super-blocks as lanes are encoded together, one per lane, as in ``super_block``.
"""

from __future__ import annotations

import numpy as np

from edgeq.kernels_cpu import simd
from edgeq.kernels_cpu.encode.lane_moves import move_codes, start_codes, would_move
from edgeq.kernels_cpu.encode.lane_search import search_symmetric_scale
from edgeq.kernels_cpu.encode.lane_weights import importance_weights, sum_of_squares
from edgeq.kernels_cpu.encode.tiles import (
    REGISTERS,
    block_addresses,
    load,
    load_int32,
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
def _search(isa, wide, values, first, last, tiles, found, moved, pending):
    """Scales of the 16 sub-blocks, weighted by x²; ``found`` is ``[16, 2, lanes]``.

    Returns how many sub-blocks had codes that moved; ``pending`` gets their numbers (sub · lanes + lane),
    as many to a tile of ``moved`` as there are lanes, in which their codes are.
    """
    tile, codes = tiles[0], tiles[1]
    lanes = simd.lanes_of(wide)
    addresses, gathered = np.empty(lanes, np.int64), np.empty(lanes, np.int64)
    block_addresses(values, first, last, 256, last, addresses)
    count = 0
    for sub in range(16):
        load_tile(isa, addresses, 16 * sub, tile)
        sum_lx, sum_l2 = start_codes(wide, tile, codes, _NMAX, found[sub])
        bits = simd.mask_bits(would_move(wide, tile, codes, _NMAX, sum_lx, sum_l2))
        for lane in range(lanes):
            pending[count] = sub * lanes + lane
            count += (bits >> lane) & 1
    for start in range(0, count, lanes):
        for lane in range(lanes):
            number = pending[min(start + lane, count - 1)]
            gathered[lane] = addresses[number % lanes] + 64 * (number // lanes)
        load_tile(isa, gathered, 0, tile)
        codes = moved[start // lanes]
        sum_lx, sum_l2 = start_codes(wide, tile, codes, _NMAX, tiles[2])
        scale = move_codes(wide, tile, codes, _NMAX, sum_lx, sum_l2)
        for lane in range(min(lanes, count - start)):
            number = pending[start + lane]
            found[number // lanes, 0, number % lanes] = simd.lane(scale, lane)
    return count


@helper
def _search_weighted(isa, wide, values, importance, first, last, tiles, found, totals):
    """The same under importance; the weights' sums go into totals ``[16, lanes]``."""
    tile, weights, weighted = tiles[0], tiles[1], tiles[2]
    addresses, importances = np.empty(tile.shape[1], np.int64), np.empty(tile.shape[1], np.int64)
    block_addresses(values, first, last, 256, last, addresses)
    block_addresses(importance, first, last, 256, importance.size // 256, importances)
    sigma2 = _TWO * sum_of_squares(isa, wide, addresses, 256, tile) / _SUPER_VALUES
    for sub in range(16):
        load_tile(isa, addresses, 16 * sub, tile)
        load_tile(isa, importances, 16 * sub, weights)
        store(wide, totals, sub, importance_weights(wide, tile, sigma2, weights))
        for i in range(16):
            store(wide, weighted, i, load(wide, weights, i) * load(wide, tile, i))
        search_symmetric_scale(wide, tile, weights, weighted, _NMAX, found[sub])


@helper
def _all_finite(wide, found):
    finite = simd.splat(wide, ZERO) == ZERO
    for sub in range(16):
        finite = finite & (abs(load(wide, found[sub], 0)) < _INFINITY)
    return simd.all_of(finite)


@helper
def _round_scales(wide, found, scale_codes):
    """Codes −32..31 (int32 ``[16, lanes]``) by the largest scale of each lane; returns their scale."""
    peak, magnitude = simd.splat(wide, ZERO), simd.splat(wide, ZERO)
    for sub in range(16):
        scale = load(wide, found[sub], 0)
        larger = abs(scale) > magnitude
        peak = simd.select(larger, scale, peak)
        magnitude = simd.select(larger, abs(scale), magnitude)
    zero = peak == ZERO
    inverse = _LEVELS / peak
    _store_scale_codes(wide, found, inverse, zero, scale_codes)
    return simd.select(zero, ZERO, _ONE / inverse)


@helper
def _fit_scales(wide, found, totals, tiles, scale_codes):
    """The same by least squares weighted by totals ``[16, lanes]``."""
    scales, weighted, best = tiles[0], tiles[1], tiles[2]
    for sub in range(16):
        scale = load(wide, found[sub], 0)
        store(wide, scales, sub, scale)
        store(wide, weighted, sub, load(wide, totals, sub) * scale)
    search_symmetric_scale(wide, scales, totals, weighted, _SCALE_NMAX, best)
    inverse = load(wide, best, 1)
    _store_scale_codes(wide, found, inverse, inverse == ZERO, scale_codes)
    return load(wide, best, 0)


@helper
def _store_scale_codes(wide, found, inverse, zero, scale_codes):
    for sub in range(16):
        code = simd.nearest(inverse * load(wide, found[sub], 0))
        code = simd.minimum(simd.maximum(code, -_SCALE_NMAX), _SCALE_NMAX - 1)
        store(wide, scale_codes, sub, simd.select(zero, -_SCALE_NMAX, code))


@helper
def _decode_scales(wide, d, scale_codes, halves, scales):
    """The float16 bits of d, and the scales ``[16, lanes]`` as a decoder sees them; False on overflow."""
    half = to_half(wide, d)
    store(wide, halves, 0, half)
    for sub in range(16):
        store(wide, scales, sub, from_half(wide, half) * simd.to_float(load_int32(wide, scale_codes, sub)))
    return simd.all_of((half & 0x7C00) != 0x7C00)


@helper
def _searched_codes(sub, lane, value, found, moved, pending, count, codes):
    """The codes of the search, for a sub-block whose scale is stored as zero."""
    lanes = found.shape[2]
    for i in range(count):
        if pending[i] == sub * lanes + lane:
            for k in range(16):
                codes[16 * sub + k] = np.uint8(np.int64(moved[i // lanes, k, i % lanes]) + _NMAX)
            return
    inverse = found[sub, 1, lane]
    code = simd.nearest(value * inverse) if inverse != ZERO else simd.nearest(value * ZERO) - _NMAX
    code = simd.minimum(simd.maximum(code, -_NMAX), _NMAX - 1) + _NMAX
    simd.store(simd.address(codes) + 16 * sub, simd.to_uint8(code))


@helper
def _round_codes(isa, values, b, lane, scales, found, moved, pending, count, codes):
    """Codes 0..7 (uint8 ``[256]``) of super-block b with the scales as stored, or else the search's."""
    sixteen = simd.resized(isa, 16)
    x, out = simd.address(values) + 1024 * b, simd.address(codes)
    for sub in range(16):
        value, scale = simd.load(sixteen, x + 64 * sub), scales[sub, lane]
        if scale == ZERO:
            _searched_codes(sub, lane, value, found, moved, pending, count, codes)
            continue
        code = simd.nearest(value / scale)
        code = simd.minimum(simd.maximum(code, -_NMAX), _NMAX - 1) + _NMAX
        simd.store(out + 16 * sub, simd.to_uint8(code))


@helper
def _store_scales(scale_codes, lane, block):
    """The packed scales and d of one lane's super-block."""
    for j in range(4):
        high = 0
        for k in range(4):
            high |= ((scale_codes[j + 4 * k, lane] + 32) >> 4) << (2 * k)
        block[104 + j] = np.uint8(high)
    for j in range(8):
        low, upper = scale_codes[j, lane] + 32, scale_codes[j + 8, lane] + 32
        block[96 + j] = np.uint8((low & 15) | ((upper & 15) << 4))


@helper
def _finish(isa, wide, values, first, last, d, memory, count, out):
    _, found, moved, pending, _, scale_codes, halves, scales, codes = memory
    fine = _all_finite(wide, found) & _decode_scales(wide, d, scale_codes, halves, scales)
    for lane in range(min(simd.lanes_of(wide), last - first)):
        block = out[first + lane]
        _round_codes(isa, values, first + lane, lane, scales, found, moved, pending, count, codes)
        store_third_bits(isa, codes, simd.address(block))
        store_two_bits(isa, codes, simd.address(block) + 32)
        _store_scales(scale_codes, lane, block)
        simd.store_int16(simd.address(block) + 108, halves[0, lane])
    return fine


@helper
def _scratch(wide):
    """Tiles, search results, moved codes and whose, totals, scale codes, halves, decoded scales, codes."""
    lanes = simd.lanes_of(wide)
    tiles, found = vectors(wide, 48).reshape(3, 16, lanes), vectors(wide, 32).reshape(16, 2, lanes)
    moved, pending = vectors(wide, 256).reshape(16, 16, lanes), np.empty(16 * lanes + 1, np.int64)
    scale_codes, halves = np.empty((16, lanes), np.int32), np.empty((1, lanes), np.int32)
    totals, scales, codes = vectors(wide, 16), vectors(wide, 16), np.empty(256, np.uint8)
    return tiles, found, moved, pending, totals, scale_codes, halves, scales, codes


@kernel
def encode_blocks(first, last, values, out, isa):
    """Blocks first..last of float32 ``[n, 256]``, weighted by x²; False when a scale overflows float16."""
    wide = simd.widened(isa, REGISTERS)
    memory = _scratch(wide)
    tiles, found, moved, pending, _, scale_codes, _, _, _ = memory
    fine = True
    for b in range(first, last, simd.lanes_of(wide)):
        count = _search(isa, wide, values, b, last, tiles, found, moved, pending)
        d = _round_scales(wide, found, scale_codes)
        fine &= _finish(isa, wide, values, b, last, d, memory, count, out)
    return fine


@kernel
def encode_rows(first, last, values, importance, out, isa):
    """Rows first..last of float32 ``[rows, columns]`` under importance ``[columns]``."""
    wide = simd.widened(isa, REGISTERS)
    memory = _scratch(wide)
    tiles, found, _, _, totals, scale_codes, _, _, _ = memory
    each = importance.size // 256
    flat, blocks = values.reshape(-1, 256), out.reshape(-1, 110)
    fine = True
    for b in range(first * each, last * each, simd.lanes_of(wide)):
        _search_weighted(isa, wide, flat, importance, b, last * each, tiles, found, totals)
        d = _fit_scales(wide, found, totals, tiles, scale_codes)
        fine &= _finish(isa, wide, flat, b, last * each, d, memory, 0, blocks)
    return fine
