"""Decoder of Q3_K: twin of ``edgeq.formats.blocks.q3_k``, where the layout is described."""

from __future__ import annotations

import numpy as np

from edgeq.kernels_cpu.jit import kernel
from edgeq.kernels_cpu.scalar import load_half


@kernel
def scale_code(block, j):
    """Scale j of a block, −32..31."""
    low = (np.int32(block[96 + (j & 7)]) >> np.int32((j >> 3) * 4)) & np.int32(15)
    high = (np.int32(block[104 + (j & 3)]) >> np.int32((j >> 2) * 2)) & np.int32(3)
    return (low | (high << np.int32(4))) - np.int32(32)


@kernel
def decode_block(block, out):
    """One block, uint8 ``[block_bytes]``, to float32 ``[block_values]``."""
    d = load_half(block, 108)
    for j in range(16):
        scale = d * np.float32(scale_code(block, j))
        high_at = (j & 1) * 16
        at = 32 + (j >> 3) * 32 + high_at
        shift, high_shift = np.int32(((j >> 1) & 3) * 2), np.int32(j >> 1)
        for i in range(out.size >> 4):
            low = (np.int32(block[at + i]) >> shift) & np.int32(3)
            high = (np.int32(block[high_at + i]) >> high_shift) & np.int32(1)
            out[j * 16 + i] = scale * np.float32((low | (high << np.int32(2))) - np.int32(4))


@kernel
def decode_blocks(first, last, blocks, out):
    """Blocks first..last of uint8 ``[n, block_bytes]`` to float32 ``[n, block_values]``."""
    for b in range(first, last):
        decode_block(blocks[b], out[b])
