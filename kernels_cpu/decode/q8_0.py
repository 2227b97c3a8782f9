"""Decoder of Q8_0: twin of ``edgeq.formats.blocks.q8_0``, where the layout is described."""

from __future__ import annotations

import numpy as np

from edgeq.kernels_cpu.jit import kernel
from edgeq.kernels_cpu.scalar import load_half


@kernel
def decode_block(block, out):
    """One block, uint8 ``[block_bytes]``, to float32 ``[block_values]``."""
    d = load_half(block, 0)
    for i in range(out.size):
        out[i] = d * np.float32(np.int8(block[2 + i]))


@kernel
def decode_blocks(first, last, blocks, out):
    """Blocks first..last of uint8 ``[n, block_bytes]`` to float32 ``[n, block_values]``."""
    for b in range(first, last):
        decode_block(blocks[b], out[b])
