"""Decoder of IQ3_XXS: twin of ``edgeq.formats.blocks.iq3_xxs``, where the layout is described."""

from __future__ import annotations

import numpy as np

from edgeq.formats.blocks.codebooks import grid
from edgeq.kernels_cpu.decode.codebooks import EVEN_SIGNS, half_scale, store_signed, word32
from edgeq.kernels_cpu.jit import kernel
from edgeq.kernels_cpu.scalar import load_half

_HALF = np.float32(0.5)
GRID = grid("IQ3_XXS")


@kernel
def decode_block(block, out):
    """One block, uint8 ``[block_bytes]``, to float32 ``[block_values]``."""
    d = load_half(block, 0)
    for j in range(8):
        word = word32(block, 66 + 4 * j)
        scale = d * half_scale(word >> 28) * _HALF
        for k in range(8):  # four values each
            signs = EVEN_SIGNS[(word >> (7 * (k >> 1))) & 127, 4 * (k & 1) :]
            store_signed(out, 32 * j + 4 * k, scale, GRID[block[2 + 8 * j + k]], signs)


@kernel
def decode_blocks(first, last, blocks, out):
    """Blocks first..last of uint8 ``[n, block_bytes]`` to float32 ``[n, block_values]``."""
    for b in range(first, last):
        decode_block(blocks[b], out[b])
