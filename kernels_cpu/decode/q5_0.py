"""Decoder of Q5_0: twin of ``edgeq.formats.blocks.q5_0``, where the layout is described."""

from __future__ import annotations

import numpy as np

from edgeq.kernels_cpu.jit import kernel
from edgeq.kernels_cpu.scalar import load_half


@kernel
def decode_block(block, out):
    """One block, uint8 ``[block_bytes]``, to float32 ``[block_values]``."""
    d = load_half(block, 0)
    for i in range(out.size >> 1):
        q = np.int32(block[6 + i])
        first = (np.int32(block[2 + (i >> 3)]) >> (i & 7)) & 1
        second = (np.int32(block[4 + (i >> 3)]) >> (i & 7)) & 1
        out[i] = d * np.float32(((q & 15) | (first << 4)) - 16)
        out[i + 16] = d * np.float32(((q >> 4) | (second << 4)) - 16)


@kernel
def decode_blocks(first, last, blocks, out):
    """Blocks first..last of uint8 ``[n, block_bytes]`` to float32 ``[n, block_values]``."""
    for b in range(first, last):
        decode_block(blocks[b], out[b])
