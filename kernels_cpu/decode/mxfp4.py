"""Decoder of MXFP4: twin of ``edgeq.formats.blocks.mxfp4``, where the layout is described."""

from __future__ import annotations

import numpy as np

from edgeq.formats.blocks.mxfp4 import LEVELS
from edgeq.kernels_cpu.jit import kernel


@kernel
def half_power_of_two(e):
    """2^(e − 128) as float32, from its bits; subnormal for e below 2."""
    bits = np.int64(0x00200000) << e
    if e >= 2:
        bits = (e - 1) << 23
    return np.int32(bits).view(np.float32)


@kernel
def decode_block(block, out):
    """One block, uint8 ``[block_bytes]``, to float32 ``[block_values]``."""
    d = half_power_of_two(np.int64(block[0]))
    for i in range(out.size >> 1):
        q = np.int32(block[1 + i])
        out[i] = d * LEVELS[q & 15]
        out[i + 16] = d * LEVELS[q >> 4]


@kernel
def decode_blocks(first, last, blocks, out):
    """Blocks first..last of uint8 ``[n, block_bytes]`` to float32 ``[n, block_values]``."""
    for b in range(first, last):
        decode_block(blocks[b], out[b])
