"""Decoder of IQ4_XS: twin of ``edgeq.formats.blocks.iq4_xs``, where the layout is described."""

from __future__ import annotations

import numpy as np

from edgeq.kernels_cpu.decode.iq4_nl import LEVELS
from edgeq.kernels_cpu.jit import kernel
from edgeq.kernels_cpu.scalar import load_half


@kernel
def decode_block(block, out):
    """One block, uint8 ``[block_bytes]``, to float32 ``[block_values]``."""
    d = load_half(block, 0)
    upper = np.int64(block[2]) | (np.int64(block[3]) << 8)
    for j in range(8):
        low = (np.int64(block[4 + (j >> 1)]) >> ((j & 1) * 4)) & 15
        scale = d * np.float32((low | (((upper >> (2 * j)) & 3) << 4)) - 32)
        for i in range(out.size >> 4):
            q = np.int32(block[8 + j * 16 + i])
            out[j * 32 + i] = scale * LEVELS[q & 15]
            out[j * 32 + 16 + i] = scale * LEVELS[q >> 4]


@kernel
def decode_blocks(first, last, blocks, out):
    """Blocks first..last of uint8 ``[n, block_bytes]`` to float32 ``[n, block_values]``."""
    for b in range(first, last):
        decode_block(blocks[b], out[b])
