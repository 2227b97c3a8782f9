"""Panels of packed weights times quantized activations, compiled for each layout."""

from __future__ import annotations

import numpy as np

from edgeq.kernels_cpu import simd
from edgeq.kernels_cpu.jit import kernel
from edgeq.kernels_cpu.products.layout import REGISTERS
from edgeq.kernels_cpu.products.tiles import ROWS, operand_bytes, tile, unpack, unpacked_block_bytes, widen

# Columns of a panel that are unpacked at a time. For few rows that is what fits the nearest cache; with more of
# them, what ends and begins with a segment costs more.
FEW_ROWS, SEGMENT_OF_FEW, SEGMENT = 32, 512, 2048


@kernel
def one_row(first, last, layout, packed, codes, scales, words, out):
    """Add panels first..last of uint8 ``[panels, blocks, block_bytes]`` times one row to out ``[1, N]``."""
    blocks, stride = packed.shape[1], packed.shape[1] * packed.shape[2]
    width = out.shape[1] // packed.shape[0]
    x, d, w = simd.address(codes), simd.address(scales), simd.address(words)
    for panel in range(first, last):
        weights, to = simd.address(packed) + panel * stride, simd.address(out) + 4 * panel * width
        tile(layout, 1, blocks, blocks, weights, x, d, w, to, 0, 0)


@kernel
def many_rows(first, last, layout, packed, codes, scales, words, out):
    """The same for a multiple of ROWS rows and out ``[T, N]``. Each panel is unpacked once, in segments."""
    blocks, block_bytes = packed.shape[1], packed.shape[2]
    width, columns = out.shape[1] // packed.shape[0], codes.shape[1] // packed.shape[1]
    size = operand_bytes(layout)
    x_at, wide = simd.address(codes), np.empty(codes.size if size == 2 else 0, np.int16)
    if size == 2:
        widen(layout, codes.size // (width // REGISTERS), x_at, simd.address(wide))
        x_at = simd.address(wide)
    step = max(1, (SEGMENT_OF_FEW if codes.shape[0] <= FEW_ROWS else SEGMENT) // columns)
    memory = np.empty(step * unpacked_block_bytes(layout) + 64, np.uint8)
    panel_at = (simd.address(memory) + 63) & -64
    segments = -(-blocks // step)
    for segment in range(first * segments, last * segments):
        panel, at = segment // segments, segment % segments * step
        count = min(step, blocks - at)
        weights = simd.address(packed) + (panel * blocks + at) * block_bytes
        ahead = weights + count * block_bytes  # beyond the last panel, too: nothing is read
        unpack(layout, count, weights, panel_at)
        for t in range(0, codes.shape[0], ROWS):
            x = x_at + (t * codes.shape[1] + at * columns) * size
            d = simd.address(scales) + 4 * (t * blocks + at)
            w = simd.address(words) + 4 * (t * words.shape[1] + at * (words.shape[1] // blocks))
            to = simd.address(out) + 4 * (t * out.shape[1] + panel * width)
            near = ahead if t == 0 else panel_at
            tile(layout, ROWS, count, blocks, panel_at, x, d, w, to, 4 * out.shape[1], near)
    return memory.size + wide.size  # keeps them alive
