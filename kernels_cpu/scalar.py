"""Scalar helpers compiled into the kernels: rounding, half precision, sums. Twins of those in formats.

Bit arithmetic in int64, so that they need no instruction and no library call on any CPU, and stay exact
for subnormals. Numba widens mixed integers to int64 and float32 with integers to float64: hence the casts.
"""

from __future__ import annotations

import numpy as np

from edgeq.kernels_cpu.jit import fast_kernel, helper

ZERO = np.float32(0)
_ROUND = np.float32(12582912.0)
_HALF = np.float32(0.5)
_2_M112 = np.float32(2.0**-112)
_2_112 = np.float32(2.0**112)
_2_M110 = np.float32(2.0**-110)


@helper
def nearest_int(x):
    """Ties to even, as ggml's ``nearest_int``, also for what does not fit 23 bits; int32 (vectorises)."""
    bits = np.int32(np.float32(x + _ROUND).view(np.int32) & np.int32(0x7FFFFF))
    return np.int32(bits - np.int32(0x400000))


@helper
def half_to_float(bits):
    """float16 bits (integer) to float32, exact (source: ``ggml_compute_fp16_to_fp32``)."""
    magnitude = np.int32(np.int32(bits) & np.int32(0x7FFF))
    sign = np.int32(np.int32(bits) & np.int32(0x8000)) << np.int32(16)
    shifted = np.int32(np.int32(magnitude << np.int32(13)) + np.int32(0x70000000))
    normal = np.float32(shifted.view(np.float32) * _2_M112)
    subnormal = np.float32(np.int32(magnitude | np.int32(0x3F000000)).view(np.float32) - _HALF)
    value = subnormal if magnitude < np.int32(1 << 10) else normal
    return np.int32(np.float32(value).view(np.int32) | sign).view(np.float32)


@helper
def float_to_half(x):
    """float32 to float16 bits (int64), ties to even (source: ``ggml_compute_fp32_to_fp16``)."""
    word = np.int64(np.float32(x).view(np.int32)) & 0xFFFFFFFF
    doubled = (word << 1) & 0xFFFFFFFF
    bias = max(doubled & 0xFF000000, 0x71000000)
    base = np.float32(np.float32(abs(x) * _2_112) * _2_M110)
    rounded = np.float32(np.int32((bias >> 1) + 0x07800000).view(np.float32) + base)
    bits = np.int64(rounded.view(np.int32))
    magnitude = 0x7E00 if doubled > 0xFF000000 else ((bits >> 13) & 0x7C00) + (bits & 0xFFF)
    return ((word >> 16) & 0x8000) | magnitude


@helper
def load_half(block, at):
    """The float16 at byte ``at`` of a block, as float32."""
    return half_to_float(np.int64(block[at]) | (np.int64(block[at + 1]) << 8))


@helper
def store_half(block, at, x):
    """Round x to float16 at byte ``at``; False when it is not finite there."""
    bits = float_to_half(x)
    block[at] = np.uint8(bits & 0xFF)
    block[at + 1] = np.uint8(bits >> 8)
    return (bits & 0x7C00) != 0x7C00


@helper
def scale_and_min_codes(block, at, j):
    """6-bit scale and min (int64) of sub-block j, packed at byte ``at`` (see ``pack_scales_and_mins``)."""
    if j < 4:
        return np.int64(block[at + j]) & 63, np.int64(block[at + j + 4]) & 63
    low = np.int64(block[at + j + 4])
    scale = (low & 15) | ((np.int64(block[at + j - 4]) >> 6) << 4)
    return scale, (low >> 4) | ((np.int64(block[at + j]) >> 6) << 4)


@fast_kernel
def dot(a, b):
    """Sum of products of two float32 vectors, in any order."""
    total = ZERO
    for i in range(a.size):
        total += a[i] * b[i]
    return total
