"""Encoder of TQ1_0: twin of ``edgeq.formats.blocks.tq1_0``, where the layout is described."""

from __future__ import annotations

import numpy as np

from edgeq.kernels_cpu.encode.rounding import round_to_trits
from edgeq.kernels_cpu.jit import helper, kernel
from edgeq.kernels_cpu.scalar import store_half


@helper
def _store_trits(codes, first, stride, digits, block, at):
    """``stride`` bytes at ``at``; byte i holds codes first + i + stride · k, k in 0..digits − 1."""
    for i in range(stride):
        total = 0
        for k in range(5):
            total = total * 3 + (np.int64(codes[first + i + stride * k]) if k < digits else 0)
        block[at + i] = np.uint8((total * 256 + 242) // 243)


@helper
def store_codes(codes, block):
    """256 codes 0..2 to the first 52 bytes."""
    _store_trits(codes, 0, 32, 5, block, 0)
    _store_trits(codes, 160, 16, 5, block, 32)
    _store_trits(codes, 240, 4, 4, block, 48)


@kernel
def encode_blocks(first, last, values, out):
    """Blocks first..last of float32 ``[n, 256]``; False when a scale overflows float16."""
    codes = np.empty(256, np.uint8)
    fine = True
    for b in range(first, last):
        d = round_to_trits(values[b], codes)
        store_codes(codes, out[b])
        fine &= store_half(out[b], 52, d)
    return fine
