"""Decoder of IQ2_S: twin of ``edgeq.formats.blocks.iq2_s``, where the layout is described."""

from __future__ import annotations

import numpy as np

from edgeq.formats.blocks.codebooks import grid
from edgeq.kernels_cpu.decode.codebooks import SIGNS, quarter_scale, store_signed
from edgeq.kernels_cpu.jit import kernel
from edgeq.kernels_cpu.scalar import load_half

GRID = grid("IQ2_S")


@kernel
def decode_block(block, out):
    """One block, uint8 ``[block_bytes]``, to float32 ``[block_values]``."""
    d = load_half(block, 0)
    for j in range(32):  # eight values each
        high = (np.int64(block[66 + (j >> 2)]) >> ((j & 3) * 2)) & 3
        nibble = (np.int64(block[74 + (j >> 2)]) >> (((j >> 1) & 1) * 4)) & 15
        number = np.int64(block[2 + j]) | (high << 8)
        store_signed(out, 8 * j, d * quarter_scale(nibble), GRID[number], SIGNS[block[34 + j]])


@kernel
def decode_blocks(first, last, blocks, out):
    """Blocks first..last of uint8 ``[n, block_bytes]`` to float32 ``[n, block_values]``."""
    for b in range(first, last):
        decode_block(blocks[b], out[b])
