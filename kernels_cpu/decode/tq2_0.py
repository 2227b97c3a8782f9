"""Decoder of TQ2_0: twin of ``edgeq.formats.blocks.tq2_0``, where the layout is described."""

from __future__ import annotations

import numpy as np

from edgeq.kernels_cpu.jit import kernel
from edgeq.kernels_cpu.scalar import load_half


@kernel
def decode_block(block, out):
    """One block, uint8 ``[block_bytes]``, to float32 ``[block_values]``."""
    d = load_half(block, 64)
    for j in range(8):
        at, shift = (j >> 2) * 32, np.int32((j & 3) * 2)
        for i in range(out.size >> 3):
            q = (np.int32(block[at + i]) >> shift) & np.int32(3)
            out[j * 32 + i] = d * np.float32(q - np.int32(1))


@kernel
def decode_blocks(first, last, blocks, out):
    """Blocks first..last of uint8 ``[n, block_bytes]`` to float32 ``[n, block_values]``."""
    for b in range(first, last):
        decode_block(blocks[b], out[b])
