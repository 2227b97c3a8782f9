"""Decoder of IQ1_S: twin of ``edgeq.formats.blocks.iq1_s``, where the layout is described."""

from __future__ import annotations

import numpy as np

from edgeq.formats.blocks.codebooks import grid
from edgeq.kernels_cpu.decode.codebooks import store_shifted, word16
from edgeq.kernels_cpu.jit import kernel
from edgeq.kernels_cpu.scalar import load_half

GRID = grid("IQ1_S")


@kernel
def decode_block(block, out):
    """One block, uint8 ``[block_bytes]``, to float32 ``[block_values]``."""
    d = load_half(block, 0)
    for j in range(32):  # eight values each
        word = word16(block, 34 + 2 * (j >> 2))
        scale = d * np.float32(2 * ((word >> 12) & 7) + 1)
        number = np.int64(block[2 + j]) | (((word >> (3 * (j & 3))) & 7) << 8)
        store_shifted(out, 8 * j, scale, GRID[number], word & 0x8000)


@kernel
def decode_blocks(first, last, blocks, out):
    """Blocks first..last of uint8 ``[n, block_bytes]`` to float32 ``[n, block_values]``."""
    for b in range(first, last):
        decode_block(blocks[b], out[b])
