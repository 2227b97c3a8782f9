"""Decoder of Q2_K: twin of ``edgeq.formats.blocks.q2_k``, where the layout is described."""

from __future__ import annotations

import numpy as np

from edgeq.kernels_cpu.jit import kernel
from edgeq.kernels_cpu.scalar import load_half


@kernel
def decode_block(block, out):
    """One block, uint8 ``[block_bytes]``, to float32 ``[block_values]``."""
    d, dmin = load_half(block, 80), load_half(block, 82)
    for j in range(16):
        scale = d * np.float32(block[j] & 15)
        low = dmin * np.float32(block[j] >> 4)
        at = 16 + (j >> 3) * 32 + (j & 1) * 16
        shift = np.int32(((j >> 1) & 3) * 2)
        for i in range(out.size >> 4):
            q = (np.int32(block[at + i]) >> shift) & np.int32(3)
            out[j * 16 + i] = scale * np.float32(q) - low


@kernel
def decode_blocks(first, last, blocks, out):
    """Blocks first..last of uint8 ``[n, block_bytes]`` to float32 ``[n, block_values]``."""
    for b in range(first, last):
        decode_block(blocks[b], out[b])
