"""Panels of packed weights times quantized activations, compiled for each layout."""

from __future__ import annotations

import numpy as np

from edgeq.kernels_cpu import simd
from edgeq.kernels_cpu.jit import helper, kernel
from edgeq.kernels_cpu.products.arrange import arrange_row
from edgeq.kernels_cpu.products.tiles import (
    ROWS,
    next_block,
    operand_bytes,
    tile,
    unpack,
    unpacked_block_bytes,
)

# Columns of a panel that are unpacked at a time. For few rows that is what fits the nearest cache; with more of
# them, what ends and begins with a segment costs more.
FEW_ROWS, SEGMENT_OF_FEW, SEGMENT = 32, 512, 2048


@helper
def blocks_ahead(layout, block_bytes, count, blocks):
    """From a segment of ``count`` blocks to what comes near meanwhile: the next segment or, where a panel is whole
    rows, as much of the next panel. Behind the last one is nothing, which does no harm, since nothing is read.
    """
    return count if next_block(layout) == block_bytes else blocks


@kernel
def one_row(first, last, layout, packed, codes, scales, words, out):
    """Add panels first..last of uint8 ``[panels, blocks, block_bytes]`` times one row to out ``[1, N]``."""
    blocks, stride = packed.shape[1], packed.shape[1] * packed.shape[2]
    width = out.shape[1] // packed.shape[0]
    x, d, w = simd.address(codes), simd.address(scales), simd.address(words)
    for panel in range(first, last):
        weights, to = simd.address(packed) + panel * stride, simd.address(out) + 4 * panel * width
        tile(layout, 1, blocks, weights, x, d, w, to, 0, 0)


@kernel
def many_rows(first, last, layout, packed, codes, scales, words, out):
    """The same for a multiple of ROWS rows and out ``[T, N]``. Each panel is unpacked once, in segments."""
    blocks, block_bytes = packed.shape[1], packed.shape[2]
    width, columns = out.shape[1] // packed.shape[0], codes.shape[1] // packed.shape[1]
    rows, per_block, size = codes.shape[0], words.shape[1] // blocks, operand_bytes(layout)
    tiles = np.empty(rows * blocks * (columns * size + 4 + 4 * per_block), np.uint8)
    x_at = simd.address(tiles)
    d_at = x_at + codes.size * size
    w_at = d_at + 4 * scales.size
    own = simd.address(codes), simd.address(scales), simd.address(words)
    for t in range(rows):
        arrange_row(size, t, blocks, columns, per_block, *own, x_at, d_at, w_at)
    step = max(1, (SEGMENT_OF_FEW if rows <= FEW_ROWS else SEGMENT) // columns)
    memory = np.empty(step * unpacked_block_bytes(layout) + 64, np.uint8)
    panel_at = (simd.address(memory) + 63) & -64
    segments = -(-blocks // step)
    for segment in range(first * segments, last * segments):
        panel, at = segment // segments, segment % segments * step
        count = min(step, blocks - at)
        panel_of = simd.address(packed) + panel * blocks * block_bytes
        weights = panel_of + at * next_block(layout)
        ahead = panel_of + (at + blocks_ahead(layout, block_bytes, count, blocks)) * block_bytes
        unpack(layout, count, blocks, weights, panel_at)
        for t in range(0, rows, ROWS):
            block = t * blocks + at * ROWS
            x = x_at + block * columns * size
            to = simd.address(out) + 4 * (t * out.shape[1] + panel * width)
            d, w = d_at + 4 * block, w_at + 4 * block * per_block
            tile(layout, ROWS, count, panel_at, x, d, w, to, 4 * out.shape[1], 0 if t else ahead)
    return memory.size + tiles.size  # keeps them alive
