"""Encoder of MXFP4: twin of ``edgeq.formats.blocks.mxfp4``, where the layout is described."""

from __future__ import annotations

import math

import numpy as np

from edgeq.formats.blocks.mxfp4 import LEVELS
from edgeq.kernels_cpu.decode.mxfp4 import half_power_of_two
from edgeq.kernels_cpu.encode.rounding import shift_codes, store_nibbles
from edgeq.kernels_cpu.jit import helper, kernel
from edgeq.kernels_cpu.scalar import ZERO

_ONE = np.float32(1)
_HALF = np.float32(0.5)
_NEGATIVE = np.float32(8)  # codes 9..15 are the levels of codes 1..7 with a minus


@helper
def _exponent(x):
    """e of a block: see ``_exponents`` in formats."""
    peak = ZERO
    for value in x:
        peak = max(peak, abs(value))
    if peak == ZERO:
        return 0
    logarithm = np.float32(math.log2(np.float64(peak)))
    return min(max(np.int64(math.floor(logarithm)) + 125, 0), 254)


@helper
def _nearest_codes(x, d, codes):
    """The code of the nearest level, of equally near ones the smaller, as float32.

    A level that the scale makes infinite is nearest to nothing, as in the plain twin.
    """
    codes[:] = ZERO
    for k in range(1, 8):
        if not np.isfinite(LEVELS[k] * d):
            break
        middle = _HALF * (LEVELS[k - 1] + LEVELS[k]) * d
        for i in range(x.size):
            codes[i] += _ONE if abs(x[i]) > middle else ZERO
    for i in range(x.size):
        codes[i] += _NEGATIVE if x[i] < ZERO and codes[i] > ZERO else ZERO


@kernel
def encode_blocks(first, last, values, out):
    """Blocks first..last of float32 ``[n, 32]``; no scale overflows."""
    codes, small = np.empty(32, np.float32), np.empty(32, np.uint8)
    for b in range(first, last):
        e = _exponent(values[b])
        _nearest_codes(values[b], half_power_of_two(e), codes)
        shift_codes(codes, 0, small)
        out[b, 0] = np.uint8(e)
        store_nibbles(small, out[b], 1)
    return True
