"""Panels of packed weights times quantized activations, compiled for each layout."""

from __future__ import annotations

import numpy as np

from edgeq.kernels_cpu import simd
from edgeq.kernels_cpu.jit import kernel
from edgeq.kernels_cpu.products.layout import REGISTERS
from edgeq.kernels_cpu.products.tiles import ROWS, operand_bytes, tile, unpack, unpacked_block_bytes, widen


@kernel
def one_row(first, last, layout, packed, codes, scales, words, out):
    """Panels first..last of uint8 ``[panels, blocks, block_bytes]`` times one row; out ``[1, N]``."""
    blocks, stride = packed.shape[1], packed.shape[1] * packed.shape[2]
    width = out.shape[1] // packed.shape[0]
    x, d, w = simd.address(codes), simd.address(scales), simd.address(words)
    for panel in range(first, last):
        weights, to = simd.address(packed) + panel * stride, simd.address(out) + 4 * panel * width
        tile(layout, 1, blocks, weights, x, d, w, to, 0, 0)


@kernel
def many_rows(first, last, layout, packed, codes, scales, words, out):
    """The same for a multiple of ROWS rows; out ``[T, N]``. Each panel is unpacked once."""
    blocks, stride = packed.shape[1], packed.shape[1] * packed.shape[2]
    width = out.shape[1] // packed.shape[0]
    size = operand_bytes(layout)
    x_at, wide = simd.address(codes), np.empty(codes.size if size == 2 else 0, np.int16)
    if size == 2:
        widen(layout, codes.size // (width // REGISTERS), x_at, simd.address(wide))
        x_at = simd.address(wide)
    memory = np.empty(blocks * unpacked_block_bytes(layout) + 64, np.uint8)
    panel_at = (simd.address(memory) + 63) & -64
    for panel in range(first, last):
        weights = simd.address(packed) + panel * stride
        ahead = weights + stride  # beyond the last panel, too: nothing is read
        unpack(layout, blocks, weights, panel_at)
        for t in range(0, codes.shape[0], ROWS):
            x = x_at + t * codes.shape[1] * size
            d = simd.address(scales) + 4 * t * scales.shape[1]
            w = simd.address(words) + 4 * t * words.shape[1]
            to = simd.address(out) + 4 * (t * out.shape[1] + panel * width)
            tile(layout, ROWS, blocks, panel_at, x, d, w, to, 4 * out.shape[1], ahead if t == 0 else panel_at)
    return memory.size + wide.size  # keeps them alive
