"""Encoder of IQ4_XS: twin of ``edgeq.formats.blocks.iq4_xs``, where the layout is described.

The eight sub-blocks of a super-block go side by side with those of the next ones, as many as there are lanes.
"""

from __future__ import annotations

import numpy as np

from edgeq.kernels_cpu import simd
from edgeq.kernels_cpu.encode.lane_weights import importance_weights, row_mean_squares
from edgeq.kernels_cpu.encode.nonlinear import scratch, search_level_scales, square_tile, store_codes
from edgeq.kernels_cpu.encode.tiles import REGISTERS, block_addresses, load, load_tile
from edgeq.kernels_cpu.jit import helper, kernel
from edgeq.kernels_cpu.scalar import ZERO, nearest_int, store_half

TAKES_ISA = True
_ONE = np.float32(1)
_TWO = np.float32(2)
_LEVELS = np.float32(32)
_SUB_BLOCKS = 8


@helper
def _store(sixteen, at, scales, block):
    """The super-block at an address with its eight scales; False when one of them or d overflows."""
    peak = ZERO
    for j in range(_SUB_BLOCKS):
        if not np.isfinite(scales[j]):
            return False
        if abs(scales[j]) > abs(peak):
            peak = scales[j]
    d = -peak / _LEVELS
    inverse = _ONE / d if d != ZERO else ZERO
    high = 0
    for j in range(_SUB_BLOCKS):
        code = min(max(nearest_int(inverse * scales[j]), -32), 31)
        scale = d * np.float32(code)  # not the rounded d that is stored: ggml's quirk
        store_codes(sixteen, at + 128 * j, _ONE / scale if scale != ZERO else ZERO, block, 8 + j * 16)
        low = (code + 32) & 15
        block[4 + (j >> 1)] = np.uint8(low if j % 2 == 0 else np.int64(block[4 + (j >> 1)]) | (low << 4))
        high |= ((code + 32) >> 4) << (2 * j)
    block[2] = np.uint8(high & 0xFF)
    block[3] = np.uint8(high >> 8)
    return store_half(block, 0, d)


@helper
def _finish(isa, wide, values, b, last, memory, blocks):
    """Search the super-blocks of the tiles and store them; False when a scale overflows float16."""
    sixteen = simd.resized(isa, 16)
    tiles, scales = memory
    simd.store(simd.address(scales), search_level_scales(wide, tiles))
    fine = True
    for i in range(min(simd.lanes_of(wide) // _SUB_BLOCKS, last - b)):
        own = scales[0, i * _SUB_BLOCKS : (i + 1) * _SUB_BLOCKS]
        fine &= _store(sixteen, simd.address(values) + 1024 * (b + i), own, blocks[b + i])
    return fine


@kernel
def encode_blocks(first, last, values, out, isa):
    """Blocks first..last of float32 ``[n, 256]``, weighted by x²; False when a scale overflows float16."""
    wide = simd.widened(isa, REGISTERS)
    memory, addresses = scratch(wide), np.empty(simd.lanes_of(wide), np.int64)
    tiles, end = memory[0], last * _SUB_BLOCKS
    fine = True
    for b in range(first, last, simd.lanes_of(wide) // _SUB_BLOCKS):
        block_addresses(values, b * _SUB_BLOCKS, end, 32, end, addresses)
        load_tile(isa, addresses, 0, tiles[0])
        square_tile(wide, tiles[0], tiles[1])
        fine &= _finish(isa, wide, values, b, last, memory, out)
    return fine


@helper
def _load_weighted(isa, wide, values, importance, squares, first, b, end, tiles):
    """Values and weights of sub-blocks b..; ``squares`` are mean squares of super-blocks ``first``.."""
    lanes = simd.lanes_of(wide)
    addresses, square = np.empty(lanes, np.int64), np.empty((1, lanes), np.float32)
    block_addresses(values, b, end, 32, end, addresses)
    load_tile(isa, addresses, 0, tiles[0])
    block_addresses(importance, b, end, 32, importance.size // 32, addresses)
    load_tile(isa, addresses, 0, tiles[1])
    for lane in range(lanes):
        square[0, lane] = _TWO * squares[min(b + lane, end - 1) // _SUB_BLOCKS - first]
    importance_weights(wide, tiles[0], load(wide, square, 0), tiles[1])


@kernel
def encode_rows(first, last, values, importance, out, isa):
    """Rows first..last of float32 ``[rows, columns]`` under importance ``[columns]``."""
    wide = simd.widened(isa, REGISTERS)
    memory, squares = scratch(wide), np.empty(simd.lanes_of(wide), np.float32)
    tiles, each = memory[0], importance.size // 256
    flat, blocks, end = values.reshape(-1, 256), out.reshape(-1, 136), last * each
    fine = True
    for group in range(first * each, end, simd.lanes_of(wide)):
        group_end = min(group + simd.lanes_of(wide), end)
        row_mean_squares(isa, wide, flat, group, group_end, tiles[0], squares)
        for b in range(group, group_end, simd.lanes_of(wide) // _SUB_BLOCKS):
            _load_weighted(
                isa, wide, flat, importance, squares, group, b * _SUB_BLOCKS, group_end * _SUB_BLOCKS, tiles
            )
            fine &= _finish(isa, wide, flat, b, group_end, memory, blocks)
    return fine
