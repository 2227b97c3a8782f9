"""Decoder of Q6_K: twin of ``edgeq.formats.blocks.q6_k``, where the layout is described."""

from __future__ import annotations

import numpy as np

from edgeq.kernels_cpu.jit import kernel
from edgeq.kernels_cpu.scalar import load_half


@kernel
def decode_block(block, out):
    """One block, uint8 ``[block_bytes]``, to float32 ``[block_values]``."""
    d = load_half(block, 208)
    for sub in range(16):
        half, quarter = sub >> 3, (sub >> 1) & 3
        scale = d * np.float32(np.int8(block[192 + sub]))
        low_at = half * 64 + (quarter & 1) * 32 + (sub & 1) * 16
        high_at = 128 + half * 32 + (sub & 1) * 16
        low_shift, high_shift = np.int32((quarter >> 1) * 4), np.int32(quarter * 2)
        for i in range(out.size >> 4):
            low = (np.int32(block[low_at + i]) >> low_shift) & np.int32(15)
            high = (np.int32(block[high_at + i]) >> high_shift) & np.int32(3)
            out[sub * 16 + i] = scale * np.float32((low | (high << np.int32(4))) - np.int32(32))


@kernel
def decode_blocks(first, last, blocks, out):
    """Blocks first..last of uint8 ``[n, block_bytes]`` to float32 ``[n, block_values]``."""
    for b in range(first, last):
        decode_block(blocks[b], out[b])
