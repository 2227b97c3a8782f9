"""Encoder of Q2_K: twin of ``edgeq.formats.blocks.q2_k``, where the layout is described."""

from __future__ import annotations

import numpy as np

from edgeq.kernels_cpu.encode.rounding import store_two_bits
from edgeq.kernels_cpu.encode.search import (
    importance_weights,
    row_mean_square,
    search_positive_scale,
    search_scale_and_min,
)
from edgeq.kernels_cpu.jit import kernel
from edgeq.kernels_cpu.scalar import ZERO, load_half, nearest_int, store_half

_NMAX = 3
_TOP = np.float32(15)
_FIRST = np.float32(-0.5)
_STEP = np.float32(0.1)
_STEPS = 15
_WEIGHTED_FIRST = np.float32(-0.9)
_WEIGHTED_STEP = np.float32(0.05)
_WEIGHTED_STEPS = 36


@kernel
def _round_scales(scales, codes):
    """Float scale and 4-bit codes by the largest; a negative scale wraps, as in ggml."""
    largest = ZERO
    for scale in scales:
        largest = scale if scale > largest else largest
    inverse = _TOP / largest if largest > ZERO else ZERO
    for j in range(16):
        codes[j] = np.int64(nearest_int(inverse * scales[j])) & 0xFF
    return largest / _TOP


@kernel
def _store(x, d, dmin, scale_codes, min_codes, block, codes):
    fine = store_half(block, 80, d)
    fine &= store_half(block, 82, dmin)
    for j in range(16):
        block[j] = np.uint8((scale_codes[j] | (min_codes[j] << 4)) & 0xFF)
    _requantize(x, block, codes)
    store_two_bits(codes, block, 16)
    return fine


@kernel
def _requantize(x, block, codes):
    """Round again with the scales as stored; a zero scale leaves the codes alone."""
    d, dmin = load_half(block, 80), load_half(block, 82)
    for j in range(16):
        scale = d * np.float32(block[j] & 15)
        if scale == ZERO:
            continue
        low = dmin * np.float32(block[j] >> 4)
        for i in range(j * 16, j * 16 + 16):
            codes[i] = np.float32(min(max(nearest_int((x[i] + low) / scale), 0), _NMAX))


@kernel
def encode_blocks(first, last, values, out):
    """Blocks first..last of float32 ``[n, 256]``; False when a scale overflows float16."""
    codes, weights, trial = np.empty(256, np.float32), np.empty(16, np.float32), np.empty(16, np.float32)
    scales, mins = np.empty(16, np.float32), np.empty(16, np.float32)
    scale_codes, min_codes = np.empty(16, np.int64), np.empty(16, np.int64)
    fine = True
    for b in range(first, last):
        for j in range(16):
            x, found = values[b, j * 16 : j * 16 + 16], codes[j * 16 : j * 16 + 16]
            for i in range(16):
                weights[i] = abs(x[i])
            scales[j], mins[j] = search_scale_and_min(
                x, weights, _NMAX, _FIRST, _STEP, _STEPS, found, trial, True
            )
            fine &= np.isfinite(scales[j]) and np.isfinite(mins[j])
        d, dmin = _round_scales(scales, scale_codes), _round_scales(mins, min_codes)
        fine &= _store(values[b], d, dmin, scale_codes, min_codes, out[b], codes)
    return fine


@kernel
def encode_rows(first, last, values, importance, out):
    """Rows first..last of float32 ``[rows, columns]`` under importance ``[columns]``."""
    codes, weights, trial = np.empty(256, np.float32), np.empty(16, np.float32), np.empty(16, np.float32)
    scales, mins, totals = np.empty(16, np.float32), np.empty(16, np.float32), np.empty(16, np.float32)
    scale_codes, min_codes = np.empty(16, np.int64), np.empty(16, np.int64)
    for row in range(first, last):
        for b in range(importance.size // 256):
            block = values[row, b * 256 : b * 256 + 256]
            mean_square = row_mean_square(block)
            for j in range(16):
                x, found = block[j * 16 : j * 16 + 16], codes[j * 16 : j * 16 + 16]
                importance_weights(
                    x, importance[b * 256 + j * 16 : b * 256 + j * 16 + 16], mean_square, weights
                )
                totals[j] = ZERO
                for weight in weights:
                    totals[j] += weight
                scales[j], mins[j] = search_scale_and_min(
                    x, weights, _NMAX, _WEIGHTED_FIRST, _WEIGHTED_STEP, _WEIGHTED_STEPS, found, trial
                )
                if not (np.isfinite(scales[j]) and np.isfinite(mins[j])):
                    return False
            d = search_positive_scale(scales, totals, 15, scale_codes)
            dmin = search_positive_scale(mins, totals, 15, min_codes)
            if not _store(block, d, dmin, scale_codes, min_codes, out[row, b * 84 : b * 84 + 84], codes):
                return False
    return True
