"""Are all values finite? Faster than NumPy, which makes an array of booleans first."""

from __future__ import annotations

import numpy as np

from edgeq.kernels_cpu import simd
from edgeq.kernels_cpu.jit import kernel

_INFINITY = np.float32(np.inf)


@kernel
def rows_are_finite(first, last, values, isa):
    """Are rows first..last of float32 ``[rows, columns]`` free of NaN and infinity?"""
    wide = simd.widened(isa, 4)
    columns, lanes = values.shape[1], simd.lanes_of(wide)
    begin, end = first * columns, last * columns
    whole = begin + (end - begin) // lanes * lanes
    base = simd.address(values)
    largest = simd.splat(wide, 0)
    for i in range(begin, whole, lanes):
        bits = simd.load_int32(wide, base + 4 * i) & 0x7FFFFFFF
        largest = simd.maximum(largest, bits)
    fine = simd.max_of(largest) < 0x7F800000
    flat = values.reshape(-1)
    for i in range(whole, end):
        fine &= abs(flat[i]) < _INFINITY
    return fine
