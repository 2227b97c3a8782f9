"""Encoders without a search, and storing codes: twins of ``rounding`` and ``packing`` in formats."""

from __future__ import annotations

import numpy as np

from edgeq.kernels_cpu.jit import helper
from edgeq.kernels_cpu.scalar import ZERO

_ONE = np.float32(1)
_HALF = np.float32(0.5)


@helper
def round_half_away(x):
    """C's ``roundf`` as an integer."""
    magnitude = abs(x)
    whole = np.int32(magnitude)
    rounded = whole + np.int32(magnitude - np.float32(whole) >= _HALF)
    return np.int32(-rounded if x < ZERO else rounded)


@helper
def round_to_trits(x, codes):
    """Scale = largest magnitude; codes (uint8) 0..2, ties away from zero."""
    d = ZERO
    for value in x:
        d = max(d, abs(value))
    inverse = _ONE / d if d != ZERO else ZERO
    if not np.isfinite(inverse):  # a subnormal d has no inverse; ggml's codes are those of 0 then
        inverse = ZERO
    for i in range(x.size):
        codes[i] = np.uint8(round_half_away(x[i] * inverse) + np.int32(1))
    return d


@helper
def store_two_bits(codes, block, at):
    """256 codes below 4 to 64 bytes (see ``pack_two_bits`` in formats)."""
    for half in range(2):
        for i in range(32):
            j = half * 128 + i
            low = np.int64(codes[j]) | (np.int64(codes[j + 32]) << 2)
            high = np.int64(codes[j + 64]) | (np.int64(codes[j + 96]) << 2)
            block[at + half * 32 + i] = np.uint8(low | (high << 4))


@helper
def shift_codes(floats, zero, codes):
    """Float codes −zero.. or 0.. (zero = 0) of the searches to uint8."""
    for i in range(floats.size):
        codes[i] = np.uint8(np.int64(floats[i]) + zero)


@helper
def store_nibbles(codes, block, at):
    """32 codes below 16, or the low nibbles of larger ones, to 16 bytes."""
    for i in range(16):
        block[at + i] = np.uint8((codes[i] & 15) | ((codes[i + 16] & 15) << 4))


@helper
def store_fifth_bits(codes, block, at):
    """The fifth bits of 32 codes, a little-endian word."""
    for byte in range(4):
        bits = 0
        for i in range(8):
            bits |= ((np.int64(codes[byte * 8 + i]) >> 4) & 1) << i
        block[at + byte] = np.uint8(bits)
