"""Encoder of IQ4_NL: twin of ``edgeq.formats.blocks.iq4_nl``, where the layout is described."""

from __future__ import annotations

import numpy as np

from edgeq.kernels_cpu import simd
from edgeq.kernels_cpu.encode.lane_weights import importance_weights, sum_of_squares
from edgeq.kernels_cpu.encode.nonlinear import scratch, search_level_scales, square_tile, store_codes
from edgeq.kernels_cpu.encode.tiles import REGISTERS, block_addresses, load_tile
from edgeq.kernels_cpu.jit import helper, kernel
from edgeq.kernels_cpu.scalar import ZERO, store_half

TAKES_ISA = True
_ONE = np.float32(1)
_TWO = np.float32(2)
_BLOCK_VALUES = np.float32(32)


@helper
def _finish(isa, wide, values, b, last, memory, blocks):
    """Search the blocks of the tiles and store them; False when a scale overflows float16."""
    sixteen = simd.resized(isa, 16)
    tiles, scales = memory
    simd.store(simd.address(scales), search_level_scales(wide, tiles))
    fine = True
    for lane in range(min(simd.lanes_of(wide), last - b)):
        d, block = scales[0, lane], blocks[b + lane]
        inverse = _ONE / d if d != ZERO else ZERO
        store_codes(sixteen, simd.address(values) + 128 * (b + lane), inverse, block, 2)
        fine &= store_half(block, 0, d)
    return fine


@kernel
def encode_blocks(first, last, values, out, isa):
    """Blocks first..last of float32 ``[n, 32]``, weighted by x²; False when a scale overflows float16."""
    wide = simd.widened(isa, REGISTERS)
    memory, addresses = scratch(wide), np.empty(simd.lanes_of(wide), np.int64)
    tiles = memory[0]
    fine = True
    for b in range(first, last, simd.lanes_of(wide)):
        block_addresses(values, b, last, 32, last, addresses)
        load_tile(isa, addresses, 0, tiles[0])
        square_tile(wide, tiles[0], tiles[1])
        fine &= _finish(isa, wide, values, b, last, memory, out)
    return fine


@kernel
def encode_rows(first, last, values, importance, out, isa):
    """Rows first..last of float32 ``[rows, columns]`` under importance ``[columns]``."""
    wide = simd.widened(isa, REGISTERS)
    memory, addresses = scratch(wide), np.empty(simd.lanes_of(wide), np.int64)
    tiles = memory[0]
    each = importance.size // 32
    blocks, end = out.reshape(-1, 18), last * each
    fine = True
    for b in range(first * each, end, simd.lanes_of(wide)):
        block_addresses(values, b, end, 32, end, addresses)
        square = _TWO * (sum_of_squares(isa, wide, addresses, 32, tiles[0]) / _BLOCK_VALUES)
        block_addresses(importance, b, end, 32, each, addresses)
        load_tile(isa, addresses, 0, tiles[1])
        importance_weights(wide, tiles[0], square, tiles[1])
        fine &= _finish(isa, wide, values, b, end, memory, blocks)
    return fine
