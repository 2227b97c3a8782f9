"""Encoder of MXFP4: twin of ``edgeq.formats.blocks.mxfp4``, where the layout is described."""

from __future__ import annotations

import math

import numpy as np

from edgeq.kernels_cpu.decode.mxfp4 import LEVELS, half_power_of_two
from edgeq.kernels_cpu.encode.rounding import store_nibbles
from edgeq.kernels_cpu.jit import kernel
from edgeq.kernels_cpu.scalar import ZERO


@kernel
def encode_blocks(first, last, values, out):
    """Blocks first..last of float32 ``[n, 32]``; no scale overflows."""
    codes, best = np.empty(32, np.uint8), np.empty(32, np.float32)
    for b in range(first, last):
        x = values[b]
        peak = ZERO
        for value in x:
            peak = max(peak, abs(value))
        e = 0
        if peak > ZERO:
            e = min(max(np.int64(math.floor(np.float32(math.log2(np.float64(peak))))) + 125, 0), 254)
        d = half_power_of_two(e)
        for i in range(x.size):
            codes[i], best[i] = np.uint8(0), abs(x[i])
        for k in range(1, 16):
            level = LEVELS[k] * d
            for i in range(x.size):
                error = abs(level - x[i])
                codes[i] = np.uint8(k) if error < best[i] else codes[i]
                best[i] = min(best[i], error)
        out[b, 0] = np.uint8(e)
        store_nibbles(codes, out[b], 1)
    return True
