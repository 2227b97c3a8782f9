"""What the refiners of super-blocks of 256 values share: a lane per sub-block, one super-block at a time."""

from __future__ import annotations

import numpy as np

from edgeq.kernels_cpu import simd
from edgeq.kernels_cpu.encode.tiles import block_addresses, load_tile, vectors
from edgeq.kernels_cpu.jit import helper
from edgeq.kernels_cpu.refine.levels import code
from edgeq.kernels_cpu.refine.symmetric_search import inverse_of, weigh
from edgeq.kernels_cpu.scalar import ZERO


@helper
def scratch(wide):
    """Tiles of values, weights and weighted values, scale codes (float32), codes (uint8) and addresses."""
    lanes = simd.lanes_of(wide)
    tiles = vectors(wide, 768 // lanes).reshape(3, 256 // lanes, lanes)
    return tiles, vectors(wide, 1)[0], np.empty(256, np.uint8), np.empty((2, lanes), np.int64)


@helper
def load_tiles(transposed, wide, values, weights, b, memory):
    """Super-block b of values ``[rows, columns]`` and its weights ``[columns]``; a lane per sub-block.

    ``transposed`` is the isa to transpose with: no wider than there are sub-blocks.
    """
    tiles, _, _, addresses = memory
    lanes = addresses.shape[1]
    size = 256 // lanes
    block_addresses(values, b * lanes, (b + 1) * lanes, size, (b + 1) * lanes, addresses[0])
    block_addresses(weights, b * lanes, (b + 1) * lanes, size, weights.size // size, addresses[1])
    load_tile(transposed, addresses[0], 0, tiles[0])
    load_tile(transposed, addresses[1], 0, tiles[1])
    weigh(wide, tiles)


@helper
def round_values(sixteen, levels, values, b, d, memory):
    """Codes of super-block b for d and the scale codes."""
    _, scale_codes, codes, _ = memory
    size = 256 // scale_codes.size
    at, out = simd.address(values) + 1024 * b, simd.address(codes)
    for i in range(0, 256, 16):
        inverse = inverse_of(simd.splat(sixteen, d * scale_codes[i // size]))
        found = code(sixteen, levels, simd.load(sixteen, at + 4 * i) * inverse)
        simd.store(out + i, simd.to_uint8(found))


@helper
def store_scale_codes(memory, codes):
    """Keep them as numbers; whole ones, so −0 becomes 0."""
    scale_codes = memory[1]
    simd.store(simd.address(scale_codes), codes + ZERO)
