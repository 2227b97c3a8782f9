"""Decoder of F16: twin of ``edgeq.formats.blocks.f16``."""

from __future__ import annotations

import numpy as np

from edgeq.kernels_cpu import simd
from edgeq.kernels_cpu.half_floats import from_half
from edgeq.kernels_cpu.jit import kernel
from edgeq.kernels_cpu.scalar import half_to_float

TAKES_ISA = True


@kernel
def decode_value(low, high):
    """The two bytes of a value to float32."""
    bits = np.int32(low) | np.int32(np.int32(high) << 8)
    return half_to_float(bits)


@kernel
def decode_blocks(first, last, blocks, out, isa):
    """Values first..last of uint8 ``[n, 2]`` to float32 ``[n, 1]``."""
    wide = simd.widened(isa, 2)
    lanes = simd.lanes_of(wide)
    whole = first + (last - first) // lanes * lanes
    source, target = simd.address(blocks), simd.address(out)
    for i in range(first, whole, lanes):
        half = simd.to_int32(simd.load_int16(wide, source + 2 * i))
        simd.store(target + 4 * i, from_half(wide, half))
    for i in range(whole, last):
        out[i, 0] = decode_value(blocks[i, 0], blocks[i, 1])
