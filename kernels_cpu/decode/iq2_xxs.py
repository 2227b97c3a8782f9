"""Decoder of IQ2_XXS: twin of ``edgeq.formats.blocks.iq2_xxs``, where the layout is described."""

from __future__ import annotations

import numpy as np

from edgeq.formats.blocks.codebooks import grid
from edgeq.kernels_cpu.decode.codebooks import EVEN_SIGNS, half_scale, store_signed, word32
from edgeq.kernels_cpu.jit import kernel
from edgeq.kernels_cpu.scalar import load_half

_QUARTER = np.float32(0.25)
GRID = grid("IQ2_XXS")


@kernel
def decode_block(block, out):
    """One block, uint8 ``[block_bytes]``, to float32 ``[block_values]``."""
    d = load_half(block, 0)
    for j in range(8):
        rest = word32(block, 6 + 8 * j)
        scale = d * half_scale(rest >> 28) * _QUARTER
        for k in range(4):
            signs = EVEN_SIGNS[(rest >> (7 * k)) & 127]
            store_signed(out, 32 * j + 8 * k, scale, GRID[block[2 + 8 * j + k]], signs)


@kernel
def decode_blocks(first, last, blocks, out):
    """Blocks first..last of uint8 ``[n, block_bytes]`` to float32 ``[n, block_values]``."""
    for b in range(first, last):
        decode_block(blocks[b], out[b])
