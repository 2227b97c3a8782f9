"""What the encoders of Q4_K and Q5_K share: twin of ``edgeq.formats.blocks.super_block``.

As many super-blocks as lanes are encoded together, one per lane: sub-block by sub-block the search runs on
a tile, then the scales of all are rounded in the lanes, and last each super-block's codes are rounded by
rows, with the scales as stored.
"""

from __future__ import annotations

import numpy as np

from edgeq.kernels_cpu import simd
from edgeq.kernels_cpu.encode.lane_search import search_scale_and_min
from edgeq.kernels_cpu.encode.lane_weights import importance_weights, sum_of_squares
from edgeq.kernels_cpu.encode.sub_scales import fit_scales, round_scales
from edgeq.kernels_cpu.encode.tiles import (
    block_addresses,
    load,
    load_int32,
    load_super_tile,
    load_tile,
    store,
    vectors,
)
from edgeq.kernels_cpu.half_floats import from_half
from edgeq.kernels_cpu.jit import helper
from edgeq.kernels_cpu.scalar import ZERO

_SUB_VALUES = np.float32(32)
_SUPER_VALUES = np.float32(256)
_TWO = np.float32(2)
_SCALE_NMAX = 63
_WITH_IMPORTANCE = (np.float32(-0.9), np.float32(0.05), 36)


@helper
def search_super_blocks(isa, wide, values, first, last, nmax, search, tiles, found):
    """Scales and mins of the sub-blocks of super-blocks first..; ``found`` is ``[8, 4, lanes]``."""
    tile, weights, codes = tiles[0], tiles[1], tiles[2]
    addresses = np.empty(tile.shape[1], np.int64)
    block_addresses(values, first, last, 256, last, addresses)
    for j in range(8):
        load_super_tile(isa, addresses, 32 * j, tile)
        _rms_weights(wide, tile, weights)
        search_scale_and_min(wide, tile, weights, codes, nmax, search, False, found[j])


@helper
def search_weighted_super_blocks(
    isa, wide, values, importance, first, last, nmax, factor, tiles, found, totals
):
    """The same under importance; the weights' sums go into totals ``[sub-blocks, lanes]``.

    The tiles' height is the size of a sub-block; ``factor`` of the mean square goes into the weights.
    """
    tile, weights, codes = tiles[0], tiles[1], tiles[2]
    size, lanes = tile.shape
    addresses, importances = np.empty(lanes, np.int64), np.empty(lanes, np.int64)
    block_addresses(values, first, last, 256, last, addresses)
    block_addresses(importance, first, last, 256, importance.size // 256, importances)
    sigma2 = factor * sum_of_squares(isa, wide, addresses, 256, tile) / _SUPER_VALUES
    for j in range(found.shape[0]):
        load_super_tile(isa, addresses, size * j, tile)
        load_tile(isa, importances, size * j, weights)
        store(wide, totals, j, importance_weights(wide, tile, sigma2, weights))
        search_scale_and_min(wide, tile, weights, codes, nmax, _WITH_IMPORTANCE, False, found[j])


@helper
def _rms_weights(wide, x, weights):
    """weights = √(mean square) + |x|."""
    total = simd.splat(wide, ZERO)
    for i in range(32):
        total += load(wide, x, i) * load(wide, x, i)
    rms = simd.sqrt(total / _SUB_VALUES)
    for i in range(32):
        store(wide, weights, i, rms + abs(load(wide, x, i)))


@helper
def _limit_wrapped_scales(wide, scale_codes):
    for which in range(2):
        for j in range(8):
            code = load_int32(wide, scale_codes[which], j)
            store(wide, scale_codes[which], j, simd.minimum(code, _SCALE_NMAX))


@helper
def store_header(block, lane, scale_codes, halves):
    """d, dmin and the packed scales of one lane's super-block."""
    for which in range(2):
        block[2 * which] = np.uint8(halves[which, lane] & 0xFF)
        block[2 * which + 1] = np.uint8(halves[which, lane] >> 8)
    for j in range(4):
        low_scale, high_scale = scale_codes[0, j, lane], scale_codes[0, j + 4, lane]
        low_min, high_min = scale_codes[1, j, lane], scale_codes[1, j + 4, lane]
        block[4 + j] = np.uint8(low_scale | (high_scale >> 4 << 6))
        block[8 + j] = np.uint8(low_min | (high_min >> 4 << 6))
        block[12 + j] = np.uint8((high_scale & 15) | ((high_min & 15) << 4))


@helper
def round_codes(isa, values, b, lane, nmax, found, scale_codes, halves, codes):
    """Codes (uint8 ``[256]``) of super-block b with the scales as stored; where one is zero, the search's."""
    eight = simd.resized(isa, 8)
    d = from_half(eight, simd.splat(eight, halves[0, lane]))
    dmin = from_half(eight, simd.splat(eight, halves[1, lane]))
    x, out = simd.address(values) + 1024 * b, simd.address(codes)
    for j in range(8):
        scale = d * np.float32(scale_codes[0, j, lane])
        low = dmin * np.float32(scale_codes[1, j, lane])
        searched = simd.any_of(scale == ZERO)
        for i in range(j * 32, j * 32 + 32, 8):
            value = simd.load(eight, x + 4 * i)
            if searched:
                code = simd.nearest((value - found[j, 3, lane]) * found[j, 2, lane])
            else:
                code = simd.nearest((value + low) / scale)
            simd.store(out + i, simd.to_uint8(simd.minimum(simd.maximum(code, 0), nmax)))


@helper
def scratch(wide):
    """Memory for ``encode_batch``: tiles, search results, their weights, scale codes, halves, codes."""
    lanes = simd.lanes_of(wide)
    tiles = vectors(wide, 96).reshape(3, 32, lanes)
    found = vectors(wide, 32).reshape(8, 4, lanes)
    scale_codes, halves = np.empty((2, 8, lanes), np.int32), np.empty((2, lanes), np.int32)
    return tiles, found, vectors(wide, 8), scale_codes, halves, np.empty((lanes, 256), np.uint8)


@helper
def encode_batch(isa, wide, values, first, last, nmax, search, memory, out):
    """Up to as many super-blocks from ``first`` on as lanes: all but the codes into ``out``.

    The codes are left in the last array of ``memory``; False when a scale overflows float16.
    """
    tiles, found, _, scale_codes, halves, codes = memory
    search_super_blocks(isa, wide, values, first, last, nmax, search, tiles, found)
    fine = round_scales(wide, found, 0, _SCALE_NMAX, scale_codes[0], halves)
    fine &= round_scales(wide, found, 1, _SCALE_NMAX, scale_codes[1], halves)
    _limit_wrapped_scales(wide, scale_codes)
    _store_and_round(isa, values, first, last, nmax, found, scale_codes, halves, codes, out)
    return fine


@helper
def encode_weighted_batch(isa, wide, values, importance, first, last, nmax, memory, out):
    """The same under importance ``[columns]``."""
    tiles, found, totals, scale_codes, halves, codes = memory
    search_weighted_super_blocks(isa, wide, values, importance, first, last, nmax, _TWO, tiles, found, totals)
    fine = fit_scales(wide, found, 0, _SCALE_NMAX, totals, scale_codes[0], halves)
    fine &= fit_scales(wide, found, 1, _SCALE_NMAX, totals, scale_codes[1], halves)
    if fine:
        _store_and_round(isa, values, first, last, nmax, found, scale_codes, halves, codes, out)
    return fine


@helper
def _store_and_round(isa, values, first, last, nmax, found, scale_codes, halves, codes, out):
    for lane in range(min(len(codes), last - first)):
        store_header(out[first + lane], lane, scale_codes, halves)
        round_codes(isa, values, first + lane, lane, nmax, found, scale_codes, halves, codes[lane])
