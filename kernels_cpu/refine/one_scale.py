"""What the refiners of 32 values with one scale share: as many blocks as lanes are searched together.

Their layout is found in ``edgeq.formats.blocks``; d stands at the first two bytes.
"""

from __future__ import annotations

import numpy as np

from edgeq.kernels_cpu import simd
from edgeq.kernels_cpu.encode.tiles import load, load_tile, vectors
from edgeq.kernels_cpu.jit import helper
from edgeq.kernels_cpu.refine.levels import code
from edgeq.kernels_cpu.refine.symmetric_search import inverse_of, search_scale, weigh
from edgeq.kernels_cpu.scalar import load_half, store_half

LANES = 16


@helper
def scratch(wide):
    """Tiles of values and weighted values, scales as found, and addresses."""
    return vectors(wide, 64).reshape(2, 32, LANES), vectors(wide, 1), np.empty(LANES, np.int64)


@helper
def _load_group(isa, flat, b, end, tile, addresses):
    for lane in range(LANES):
        addresses[lane] = simd.address(flat) + 128 * min(b + lane, end - 1)
    load_tile(isa, addresses, 0, tile)


@helper
def weight_tiles(isa, wide, weights):
    """Tiles of weights ``[columns]``, one for each LANES blocks of a row; the last block is repeated."""
    each = weights.size // 32
    n = (each + LANES - 1) // LANES
    tiles, addresses = vectors(wide, 32 * n).reshape(n, 32, LANES), np.empty(LANES, np.int64)
    for group in range(n):
        _load_group(isa, weights, group * LANES, each, tiles[group], addresses)
    return tiles


@helper
def load_tiles(isa, wide, values, b, end, weights, memory):
    """Blocks b..end (repeating the last one) of values ``[rows, columns]``, and times their weights."""
    tiles, _, addresses = memory
    _load_group(isa, values, b, end, tiles[0], addresses)
    weigh(wide, tiles[0], weights, tiles[1])


@helper
def search_group(isa, wide, values, blocks, b, end, weights, levels, search, memory):
    """Better scales of blocks b.. into the memory; bit i tells that of block b + i there is one."""
    load_tiles(isa, wide, values, b, end, weights, memory)
    tiles, scales, _ = memory
    for lane in range(LANES):
        scales[0, lane] = load_half(blocks[min(b + lane, end - 1)], 0)
    d = load(wide, scales, 0)
    better, d = search_scale(wide, tiles[0], weights, tiles[1], levels, d, search, False)
    simd.store(simd.address(scales), d)
    return simd.mask_bits(better)


@helper
def codes_of(sixteen, levels, values, b, d):
    """Codes of block b's halves (int32 vectors) for its scale."""
    at = simd.address(values) + 128 * b
    inverse = inverse_of(simd.splat(sixteen, d))
    low, high = simd.load(sixteen, at) * inverse, simd.load(sixteen, at + 64) * inverse
    return code(sixteen, levels, low), code(sixteen, levels, high)


@helper
def store_nibbles(block, at, low, high):
    """Codes below 16 of a block's halves to the bytes from ``at`` on."""
    simd.store(simd.address(block) + at, simd.to_uint8(low | (high << 4)))


@helper
def refine_nibble_blocks(isa, levels, first, last, values, weights, encoded, search):
    """``refine_rows`` of the types whose block is d and 16 bytes of nibbles: they differ in their levels."""
    sixteen = simd.resized(isa, LANES)
    each = weights.size // 32
    blocks = encoded.reshape(-1, 18)
    columns, memory = weight_tiles(isa, sixteen, weights), scratch(sixteen)
    for row in range(first, last):
        end = (row + 1) * each
        for group in range(columns.shape[0]):
            b, weight = row * each + group * LANES, columns[group]
            better = search_group(isa, sixteen, values, blocks, b, end, weight, levels, search, memory)
            for lane in range(min(LANES, end - b)):
                if (better >> lane) & 1:
                    d = memory[1][0, lane]
                    low, high = codes_of(sixteen, levels, values, b + lane, d)
                    store_nibbles(blocks[b + lane], 2, low, high)
                    store_half(blocks[b + lane], 0, d)
