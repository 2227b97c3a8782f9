"""Decoder of IQ1_M: twin of ``edgeq.formats.blocks.iq1_m``, where the layout is described."""

from __future__ import annotations

import numpy as np

from edgeq.formats.blocks.codebooks import grid
from edgeq.kernels_cpu.decode.codebooks import store_shifted, word16
from edgeq.kernels_cpu.jit import kernel
from edgeq.kernels_cpu.scalar import half_to_float

GRID = grid("IQ1_M")


@kernel
def decode_block(block, out):
    """One block, uint8 ``[block_bytes]``, to float32 ``[block_values]``."""
    bits = 0
    for k in range(4):
        bits |= (word16(block, 48 + 2 * k) >> 12) << (4 * k)
    d = half_to_float(bits)
    for j in range(32):  # eight values each, two of them share a scale
        word, sub = word16(block, 48 + 2 * (j >> 3)), (j >> 1) & 3
        nibble = (np.int64(block[32 + (j >> 1)]) >> (4 * (j & 1))) & 15
        scale = d * np.float32(2 * ((word >> (3 * sub)) & 7) + 1)
        number = np.int64(block[j]) | ((nibble & 7) << 8)
        store_shifted(out, 8 * j, scale, GRID[number], nibble & 8)


@kernel
def decode_blocks(first, last, blocks, out):
    """Blocks first..last of uint8 ``[n, block_bytes]`` to float32 ``[n, block_values]``."""
    for b in range(first, last):
        decode_block(blocks[b], out[b])
