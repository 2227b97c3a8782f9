"""Decoder of Q4_K: twin of ``edgeq.formats.blocks.q4_k``, where the layout is described."""

from __future__ import annotations

import numpy as np

from edgeq.kernels_cpu.jit import kernel
from edgeq.kernels_cpu.scalar import load_half, scale_and_min_codes


@kernel
def decode_block(block, out):
    """One block, uint8 ``[block_bytes]``, to float32 ``[block_values]``."""
    d = load_half(block, 0)
    dmin = load_half(block, 2)
    for j in range(8):
        scale_code, min_code = scale_and_min_codes(block, 4, j)
        scale = d * np.float32(scale_code)
        low = dmin * np.float32(min_code)
        at = 16 + (j >> 1) * 32
        shift = np.int32((j & 1) * 4)
        for i in range(out.size >> 3):
            q = (np.int32(block[at + i]) >> shift) & np.int32(15)
            out[j * 32 + i] = scale * np.float32(q) - low


@kernel
def decode_blocks(first, last, blocks, out):
    """Blocks first..last of uint8 ``[n, block_bytes]`` to float32 ``[n, block_values]``."""
    for b in range(first, last):
        decode_block(blocks[b], out[b])
