"""Encoder of F16: twin of ``edgeq.formats.blocks.f16``; NumPy's own conversion is slow."""

from __future__ import annotations

from edgeq.kernels_cpu.jit import kernel
from edgeq.kernels_cpu.scalar import store_half


@kernel
def encode_blocks(first, last, values, out):
    """Values first..last of float32 ``[n, 1]``; False when one overflows float16."""
    fine = True
    for i in range(first, last):
        fine &= store_half(out[i], 0, values[i, 0])
    return fine
