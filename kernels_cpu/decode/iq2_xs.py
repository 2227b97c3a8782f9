"""Decoder of IQ2_XS: twin of ``edgeq.formats.blocks.iq2_xs``, where the layout is described."""

from __future__ import annotations

import numpy as np

from edgeq.formats.blocks.codebooks import grid
from edgeq.kernels_cpu.decode.codebooks import EVEN_SIGNS, quarter_scale, store_signed, word16
from edgeq.kernels_cpu.jit import kernel
from edgeq.kernels_cpu.scalar import load_half

GRID = grid("IQ2_XS")


@kernel
def decode_block(block, out):
    """One block, uint8 ``[block_bytes]``, to float32 ``[block_values]``."""
    d = load_half(block, 0)
    for j in range(32):  # eight values each
        word = word16(block, 2 + 2 * j)
        nibble = (np.int64(block[66 + (j >> 2)]) >> (((j >> 1) & 1) * 4)) & 15
        store_signed(out, 8 * j, d * quarter_scale(nibble), GRID[word & 511], EVEN_SIGNS[word >> 9])


@kernel
def decode_blocks(first, last, blocks, out):
    """Blocks first..last of uint8 ``[n, block_bytes]`` to float32 ``[n, block_values]``."""
    for b in range(first, last):
        decode_block(blocks[b], out[b])
