"""Decoder of BF16: twin of ``edgeq.formats.blocks.bf16``."""

from __future__ import annotations

import numpy as np

from edgeq.kernels_cpu.jit import kernel


@kernel
def decode_value(low, high):
    """The two bytes of a value to float32."""
    bits = np.int32(low) | np.int32(np.int32(high) << 8)
    return np.int32(bits << 16).view(np.float32)


@kernel
def decode_blocks(first, last, blocks, out):
    """Values first..last of uint8 ``[n, 2]`` to float32 ``[n, 1]``."""
    for i in range(first, last):
        out[i, 0] = decode_value(blocks[i, 0], blocks[i, 1])
