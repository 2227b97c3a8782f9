"""Encoder of Q2_K: twin of ``edgeq.formats.blocks.q2_k``, where the layout is described.

As many super-blocks as lanes are encoded together, one per lane, as in ``super_block``.
"""

from __future__ import annotations

import numpy as np

from edgeq.kernels_cpu import simd
from edgeq.kernels_cpu.encode.lane_search import search_scale_and_min
from edgeq.kernels_cpu.encode.sub_scales import fit_scales, round_scales
from edgeq.kernels_cpu.encode.super_block import search_weighted_super_blocks
from edgeq.kernels_cpu.encode.tiles import (
    REGISTERS,
    block_addresses,
    load,
    load_int32,
    load_super_tile,
    store,
    vectors,
)
from edgeq.kernels_cpu.encode.two_bits import store_two_bits
from edgeq.kernels_cpu.half_floats import from_half
from edgeq.kernels_cpu.jit import helper, kernel
from edgeq.kernels_cpu.scalar import ZERO

TAKES_ISA = True
_NMAX = 3
_SCALE_NMAX = 15
_SEARCH = (np.float32(-0.5), np.float32(0.1), 15)
_ONE = np.float32(1)
_INFINITY = np.float32(np.inf)


@helper
def _search(isa, wide, values, first, last, tiles, found):
    """Scales and mins of the sub-blocks, weighted by |x|; ``found`` is ``[16, 4, lanes]``; are all finite?"""
    tile, weights, codes = tiles[0], tiles[1], tiles[2]
    addresses = np.empty(tile.shape[1], np.int64)
    block_addresses(values, first, last, 256, last, addresses)
    for j in range(16):
        load_super_tile(isa, addresses, 16 * j, tile)
        for i in range(16):
            store(wide, weights, i, abs(load(wide, tile, i)))
        search_scale_and_min(wide, tile, weights, codes, _NMAX, _SEARCH, True, found[j])


@helper
def _all_finite(wide, found):
    finite = simd.splat(wide, ZERO) == ZERO
    for j in range(16):
        for which in range(2):
            finite = finite & (abs(load(wide, found[j], which)) < _INFINITY)
    return simd.all_of(finite)


@helper
def _decode_scales(wide, scale_codes, halves, scales):
    """Put the packed byte into scale_codes[0], scale and low as a decoder sees them into ``scales``."""
    d = from_half(wide, load_int32(wide, halves, 0))
    dmin = from_half(wide, load_int32(wide, halves, 1))
    for j in range(16):
        packed = load_int32(wide, scale_codes[0], j) | (load_int32(wide, scale_codes[1], j) << 4)
        store(wide, scale_codes[0], j, packed & 0xFF)
        store(wide, scales[j], 0, d * simd.to_float(packed & 15))
        store(wide, scales[j], 1, dmin * simd.to_float((packed >> 4) & 15))


@helper
def _round_codes(isa, values, b, lane, found, scales, codes):
    """Codes (uint8 ``[256]``) of super-block b with the scales as stored; where one is zero, the search's."""
    sixteen = simd.resized(isa, 16)
    x, out = simd.address(values) + 1024 * b, simd.address(codes)
    for j in range(16):
        value = simd.load(sixteen, x + 64 * j)
        if scales[j, 0, lane] == ZERO:
            code = simd.nearest((value - found[j, 3, lane]) * found[j, 2, lane])
        else:
            code = simd.nearest((value + scales[j, 1, lane]) / scales[j, 0, lane])
        simd.store(out + 16 * j, simd.to_uint8(simd.minimum(simd.maximum(code, 0), _NMAX)))


@helper
def _finish(isa, wide, values, first, last, memory, out):
    _, found, _, scale_codes, halves, scales, codes = memory
    _decode_scales(wide, scale_codes, halves, scales)
    for lane in range(min(simd.lanes_of(wide), last - first)):
        block = out[first + lane]
        for j in range(16):
            block[j] = np.uint8(scale_codes[0, j, lane])
        _round_codes(isa, values, first + lane, lane, found, scales, codes)
        store_two_bits(isa, codes, simd.address(block) + 16)
        for which in range(2):
            simd.store_int16(simd.address(block) + 80 + 2 * which, halves[which, lane])


@helper
def _scratch(wide):
    """Tiles, search results, their weights, scale codes, halves, decoded scales, codes."""
    lanes = simd.lanes_of(wide)
    tiles, found = vectors(wide, 48).reshape(3, 16, lanes), vectors(wide, 64).reshape(16, 4, lanes)
    scale_codes, halves = np.empty((2, 16, lanes), np.int32), np.empty((2, lanes), np.int32)
    scales = vectors(wide, 32).reshape(16, 2, lanes)
    return tiles, found, vectors(wide, 16), scale_codes, halves, scales, np.empty(256, np.uint8)


@kernel
def encode_blocks(first, last, values, out, isa):
    """Blocks first..last of float32 ``[n, 256]``; False when a scale overflows float16."""
    wide = simd.widened(isa, REGISTERS)
    memory = _scratch(wide)
    tiles, found, _, scale_codes, halves, _, _ = memory
    fine = True
    for b in range(first, last, simd.lanes_of(wide)):
        _search(isa, wide, values, b, last, tiles, found)
        fine &= _all_finite(wide, found)
        for which in range(2):
            fine &= round_scales(wide, found, which, _SCALE_NMAX, scale_codes[which], halves)
        _finish(isa, wide, values, b, last, memory, out)
    return fine


@kernel
def encode_rows(first, last, values, importance, out, isa):
    """Rows first..last of float32 ``[rows, columns]`` under importance ``[columns]``."""
    wide = simd.widened(isa, REGISTERS)
    memory = _scratch(wide)
    tiles, found, totals, scale_codes, halves, _, _ = memory
    each = importance.size // 256
    flat, blocks = values.reshape(-1, 256), out.reshape(-1, 84)
    fine = True
    for b in range(first * each, last * each, simd.lanes_of(wide)):
        search_weighted_super_blocks(
            isa, wide, flat, importance, b, last * each, _NMAX, _ONE, tiles, found, totals
        )
        for which in range(2):
            fine &= fit_scales(wide, found, which, _SCALE_NMAX, totals, scale_codes[which], halves)
        _finish(isa, wide, flat, b, last * each, memory, blocks)
    return fine
