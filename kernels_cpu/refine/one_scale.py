"""What the refiners of 32 values with one scale share: as many blocks as lanes are searched together.

Their layout is found in ``edgeq.formats.blocks``; d stands at the first two bytes.
"""

from __future__ import annotations

import numpy as np

from edgeq.kernels_cpu import simd
from edgeq.kernels_cpu.encode.tiles import block_addresses, load, load_tile, vectors
from edgeq.kernels_cpu.jit import helper
from edgeq.kernels_cpu.refine.levels import code
from edgeq.kernels_cpu.refine.symmetric_search import inverse_of, search_scale, weigh
from edgeq.kernels_cpu.scalar import load_half

LANES = 16


@helper
def scratch(wide):
    """Tiles of values, weights and weighted values, scales as found, and addresses."""
    tiles = vectors(wide, 96).reshape(3, 32, LANES)
    return tiles, vectors(wide, 1), np.empty((2, LANES), np.int64)


@helper
def load_tiles(isa, values, weights, b, last, scratch):
    """Blocks b.. (repeating the last one) of values ``[rows, columns]`` and their weights ``[columns]``."""
    tiles, _, addresses = scratch
    block_addresses(values, b, last, 32, last, addresses[0])
    block_addresses(weights, b, last, 32, weights.size // 32, addresses[1])
    load_tile(isa, addresses[0], 0, tiles[0])
    load_tile(isa, addresses[1], 0, tiles[1])


@helper
def search_blocks(isa, wide, values, weights, blocks, b, last, levels, search, scratch):
    """Better scales of blocks b.. into the scratch; bit i tells that of block b + i there is one."""
    load_tiles(isa, values, weights, b, last, scratch)
    tiles, scales, _ = scratch
    weigh(wide, tiles)
    for lane in range(LANES):
        scales[0, lane] = load_half(blocks[min(b + lane, last - 1)], 0)
    better, d = search_scale(wide, tiles, levels, load(wide, scales, 0), search, False)
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
