"""Decoder of TQ1_0: twin of ``edgeq.formats.blocks.tq1_0``, where the layout is described."""

from __future__ import annotations

import numpy as np

from edgeq.kernels_cpu.jit import kernel
from edgeq.kernels_cpu.scalar import load_half


@kernel
def _decode_trits(block, at, stride, digits, d, out, first):
    """Bytes ``at``..``at + stride``; digit k of byte i is value first + i + stride · k."""
    power = np.int32(1)
    for k in range(digits):
        for i in range(stride):
            fraction = (np.int32(block[at + i]) * power) & np.int32(255)
            out[first + stride * k + i] = (
                np.float32(((fraction * np.int32(3)) >> np.int32(8)) - np.int32(1)) * d
            )
        power = np.int32(power * np.int32(3))


@kernel
def decode_block(block, out):
    """One block, uint8 ``[block_bytes]``, to float32 ``[block_values]``."""
    d = load_half(block, 52)
    _decode_trits(block, 0, 32, 5, d, out, 0)
    _decode_trits(block, 32, 16, 5, d, out, 160)
    _decode_trits(block, 48, 4, 4, d, out, 240)


@kernel
def decode_blocks(first, last, blocks, out):
    """Blocks first..last of uint8 ``[n, block_bytes]`` to float32 ``[n, block_values]``."""
    for b in range(first, last):
        decode_block(blocks[b], out[b])
