"""What the encoders of Q4_K and Q5_K share: twin of ``edgeq.formats.blocks.super_block``."""

from __future__ import annotations

import numpy as np

from edgeq.kernels_cpu.encode.search import importance_weights, search_positive_scale, search_scale_and_min
from edgeq.kernels_cpu.jit import kernel
from edgeq.kernels_cpu.scalar import ZERO, load_half, nearest_int, scale_and_min_codes, store_half

_TOP = np.float32(63)
_TWO = np.float32(2)
_FIRST = np.float32(-0.9)  # the search under importance
_STEP = np.float32(0.05)
_STEPS = 36


@kernel
def _sum_of_squares(x):
    total = ZERO
    for value in x:
        total += value * value
    return total


@kernel
def encode_super_block(x, nmax, first, step, steps, block, codes):
    """256 values without importance: d, dmin and scales into ``block``, codes into float32 ``[256]``.

    False when d or dmin overflows float16.
    """
    weights, trial = np.empty(32, np.float32), np.empty(32, np.float32)
    scales, mins = np.empty(8, np.float32), np.empty(8, np.float32)
    for j in range(8):
        sub = x[j * 32 : j * 32 + 32]
        rms = np.sqrt(_sum_of_squares(sub) / np.float32(32))
        for i in range(32):
            weights[i] = rms + abs(sub[i])
        scales[j], mins[j] = search_scale_and_min(
            sub, weights, nmax, first, step, steps, codes[j * 32 : j * 32 + 32], trial
        )
    scale_codes, min_codes = np.empty(8, np.int64), np.empty(8, np.int64)
    d, dmin = _round_scales(scales, scale_codes), _round_scales(mins, min_codes)
    return _store(x, nmax, d, dmin, scale_codes, min_codes, block, codes)


@kernel
def encode_super_block_weighted(x, importance, nmax, block, codes):
    """The same under importance (float32 [256])."""
    weights, trial, totals = np.empty(32, np.float32), np.empty(32, np.float32), np.empty(8, np.float32)
    scales, mins = np.empty(8, np.float32), np.empty(8, np.float32)
    sigma2 = _TWO * _sum_of_squares(x) / np.float32(256)
    for j in range(8):
        sub = x[j * 32 : j * 32 + 32]
        importance_weights(sub, importance[j * 32 : j * 32 + 32], sigma2, weights)
        totals[j] = ZERO
        for weight in weights:
            totals[j] += weight
        scales[j], mins[j] = search_scale_and_min(
            sub, weights, nmax, _FIRST, _STEP, _STEPS, codes[j * 32 : j * 32 + 32], trial
        )
        if not (np.isfinite(scales[j]) and np.isfinite(mins[j])):
            return False
    scale_codes, min_codes = np.empty(8, np.int64), np.empty(8, np.int64)
    d = search_positive_scale(scales, totals, 63, scale_codes)
    dmin = search_positive_scale(mins, totals, 63, min_codes)
    return _store(x, nmax, d, dmin, scale_codes, min_codes, block, codes)


@kernel
def _round_scales(scales, codes):
    """Float scale and 6-bit codes by the largest; a negative scale wraps, as in ggml."""
    largest = ZERO
    for scale in scales:
        largest = scale if scale > largest else largest
    inverse = _TOP / largest if largest > ZERO else ZERO
    for j in range(8):
        codes[j] = min(nearest_int(inverse * scales[j]) & 0xFF, 63)
    return largest / _TOP


@kernel
def _store(x, nmax, d, dmin, scale_codes, min_codes, block, codes):
    fine = store_half(block, 0, d)
    fine &= store_half(block, 2, dmin)
    for j in range(4):
        block[4 + j] = np.uint8(scale_codes[j] | (scale_codes[j + 4] >> 4 << 6))
        block[8 + j] = np.uint8(min_codes[j] | (min_codes[j + 4] >> 4 << 6))
        block[12 + j] = np.uint8((scale_codes[j + 4] & 15) | ((min_codes[j + 4] & 15) << 4))
    _requantize(x, nmax, block, codes)
    return fine


@kernel
def _requantize(x, nmax, block, codes):
    """Round again with the scales as stored; a zero scale leaves the codes alone."""
    d, dmin = load_half(block, 0), load_half(block, 2)
    for j in range(8):
        scale_code, min_code = scale_and_min_codes(block, 4, j)
        scale = d * np.float32(scale_code)
        if scale == ZERO:
            continue
        low = dmin * np.float32(min_code)
        for i in range(j * 32, j * 32 + 32):
            codes[i] = np.float32(min(max(nearest_int((x[i] + low) / scale), 0), nmax))
