"""Decoder of IQ3_S: twin of ``edgeq.formats.blocks.iq3_s``, where the layout is described."""

from __future__ import annotations

import numpy as np

from edgeq.formats.blocks.codebooks import grid
from edgeq.kernels_cpu.decode.codebooks import SIGNS, store_signed
from edgeq.kernels_cpu.jit import kernel
from edgeq.kernels_cpu.scalar import load_half

GRID = grid("IQ3_S")


@kernel
def decode_block(block, out):
    """One block, uint8 ``[block_bytes]``, to float32 ``[block_values]``."""
    d = load_half(block, 0)
    for j in range(64):  # four values each
        nibble = (np.int64(block[106 + (j >> 4)]) >> (((j >> 3) & 1) * 4)) & 15
        number = np.int64(block[2 + j]) | (((np.int64(block[66 + (j >> 3)]) >> (j & 7)) & 1) << 8)
        signs = SIGNS[block[74 + (j >> 1)], 4 * (j & 1) :]
        store_signed(out, 4 * j, d * np.float32(1 + 2 * nibble), GRID[number], signs)


@kernel
def decode_blocks(first, last, blocks, out):
    """Blocks first..last of uint8 ``[n, block_bytes]`` to float32 ``[n, block_values]``."""
    for b in range(first, last):
        decode_block(blocks[b], out[b])
