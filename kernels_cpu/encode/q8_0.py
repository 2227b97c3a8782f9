"""Encoder of Q8_0: twin of ``edgeq.formats.blocks.q8_0``, where the layout is described.

One block is one vector of 32 lanes, however many registers that takes.
"""

from __future__ import annotations

import numpy as np

from edgeq.kernels_cpu import simd
from edgeq.kernels_cpu.half_floats import to_half
from edgeq.kernels_cpu.jit import helper, kernel
from edgeq.kernels_cpu.scalar import ZERO

TAKES_ISA = True
_ONE = np.float32(1)
_HALF = np.float32(0.5)
_LEVELS = np.float32(127)


@helper
def _round_half_away(x):
    """C's ``roundf`` as int32."""
    magnitude = abs(x)
    whole = simd.to_int32(magnitude)
    rounded = simd.select(magnitude - simd.to_float(whole) >= _HALF, whole + 1, whole)
    return simd.select(x < ZERO, -rounded, rounded)


@kernel
def encode_blocks(first, last, values, out, isa):
    """Blocks first..last of float32 ``[n, 32]``; False when a scale overflows float16."""
    block, one = simd.resized(isa, 32), simd.resized(isa, 4)
    source, target = simd.address(values), simd.address(out)
    fine = True
    for b in range(first, last):
        x = simd.load(block, source + 128 * b)
        d = simd.max_of(abs(x)) / _LEVELS
        inverse = _ONE / d if d != ZERO else ZERO
        if not np.isfinite(inverse):  # d is subnormal: in ggml, infinite and NaN codes become 0 on x86
            inverse = ZERO
        half = simd.lane(to_half(one, simd.splat(one, d)), 0)
        fine &= half < 0x7C00
        at = target + 34 * b
        simd.store(at + 2, simd.to_uint8(_round_half_away(x * inverse)))
        out[b, 0], out[b, 1] = np.uint8(half & 0xFF), np.uint8(half >> 8)
    return fine
