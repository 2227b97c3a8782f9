"""Encoder of Q8_0: twin of ``edgeq.formats.blocks.q8_0``, where the layout is described."""

from __future__ import annotations

import numpy as np

from edgeq.kernels_cpu.encode.rounding import round_half_away
from edgeq.kernels_cpu.jit import kernel
from edgeq.kernels_cpu.scalar import ZERO, store_half

_ONE = np.float32(1)
_LEVELS = np.float32(127)


@kernel
def encode_blocks(first, last, values, out):
    """Blocks first..last of float32 ``[n, 32]``; False when a scale overflows float16."""
    fine = True
    for b in range(first, last):
        x, block = values[b], out[b]
        peak = ZERO
        for value in x:
            peak = max(peak, abs(value))
        d = peak / _LEVELS
        inverse = _ONE / d if d != ZERO else ZERO
        if not np.isfinite(inverse):  # d is subnormal: in ggml, infinite and NaN codes become 0 on x86
            inverse = ZERO
        for i in range(32):
            block[2 + i] = np.uint8(round_half_away(x[i] * inverse))
        fine &= store_half(block, 0, d)
    return fine
