"""Encoder of F16: twin of ``edgeq.formats.blocks.f16``; NumPy's own conversion is slow."""

from __future__ import annotations

from edgeq.kernels_cpu import simd
from edgeq.kernels_cpu.half_floats import to_half
from edgeq.kernels_cpu.jit import kernel
from edgeq.kernels_cpu.scalar import store_half

TAKES_ISA = True


@kernel
def encode_blocks(first, last, values, out, isa):
    """Values first..last of float32 ``[n, 1]``; False when one overflows float16."""
    wide = simd.widened(isa, 2)
    lanes = simd.lanes_of(wide)
    whole = first + (last - first) // lanes * lanes
    source, target = simd.address(values), simd.address(out)
    largest = simd.splat(wide, 0)
    for i in range(first, whole, lanes):
        half = to_half(wide, simd.load(wide, source + 4 * i))
        largest = simd.maximum(largest, half & 0x7FFF)
        simd.store(target + 2 * i, simd.to_int16(half))
    fine = simd.max_of(largest) < 0x7C00
    for i in range(whole, last):
        fine &= store_half(out[i], 0, values[i, 0])
    return fine
