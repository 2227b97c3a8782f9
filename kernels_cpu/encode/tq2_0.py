"""Encoder of TQ2_0: twin of ``edgeq.formats.blocks.tq2_0``, where the layout is described."""

from __future__ import annotations

import numpy as np

from edgeq.kernels_cpu.encode.rounding import round_to_trits, store_two_bits
from edgeq.kernels_cpu.jit import kernel
from edgeq.kernels_cpu.scalar import store_half


@kernel
def encode_blocks(first, last, values, out):
    """Blocks first..last of float32 ``[n, 256]``; False when a scale overflows float16."""
    codes = np.empty(256, np.uint8)
    fine = True
    for b in range(first, last):
        d = round_to_trits(values[b], codes)
        store_two_bits(codes, out[b], 0)
        fine &= store_half(out[b], 64, d)
    return fine
