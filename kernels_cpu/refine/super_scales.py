"""What the refiners of super-blocks of 256 values share: a lane per sub-block, one super-block at a time."""

from __future__ import annotations

import numpy as np

from edgeq.kernels_cpu import simd
from edgeq.kernels_cpu.encode.tiles import load_tile, vectors
from edgeq.kernels_cpu.jit import helper
from edgeq.kernels_cpu.refine.levels import code
from edgeq.kernels_cpu.refine.symmetric_search import inverse_of, weigh


@helper
def scratch(wide):
    """Tiles of values and weighted values, a row of scales (float32), codes (uint8) and addresses."""
    lanes = simd.lanes_of(wide)
    tiles = vectors(wide, 512 // lanes).reshape(2, 256 // lanes, lanes)
    return tiles, vectors(wide, 1)[0], np.empty(256, np.uint8), np.empty(lanes, np.int64)


@helper
def _load_super_block(transposed, flat, b, tile, addresses):
    """Super-block b to a tile, a lane per sub-block."""
    for lane in range(addresses.size):
        addresses[lane] = simd.address(flat) + 1024 * b + 4 * tile.shape[0] * lane
    load_tile(transposed, addresses, 0, tile)


@helper
def weight_tiles(transposed, wide, weights):
    """Tiles of weights ``[columns]``, one for each super-block of a row.

    ``transposed`` is the isa to transpose with: no wider than there are sub-blocks.
    """
    lanes, n = simd.lanes_of(wide), weights.size // 256
    tiles = vectors(wide, n * (256 // lanes)).reshape(n, 256 // lanes, lanes)
    addresses = np.empty(lanes, np.int64)
    for b in range(n):
        _load_super_block(transposed, weights, b, tiles[b], addresses)
    return tiles


@helper
def load_tiles(transposed, wide, values, b, weights, memory):
    """Super-block b of values ``[rows, columns]``, and the same times its tile of weights."""
    tiles, _, _, addresses = memory
    _load_super_block(transposed, values, b, tiles[0], addresses)
    weigh(wide, tiles[0], weights, tiles[1])


@helper
def round_values(sixteen, levels, values, b, scales, memory):
    """Codes of super-block b for the scales of its sub-blocks."""
    _, row, codes, _ = memory
    simd.store(simd.address(row), inverse_of(scales))
    size = 256 // row.size
    at, out = simd.address(values) + 1024 * b, simd.address(codes)
    for i in range(0, 256, 16):
        found = code(sixteen, levels, simd.load(sixteen, at + 4 * i) * row[i // size])
        simd.store(out + i, simd.to_uint8(found))
