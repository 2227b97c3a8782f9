"""Encoder of Q3_K: twin of ``edgeq.formats.blocks.q3_k``, where the layout is described."""

from __future__ import annotations

import numpy as np

from edgeq.kernels_cpu.decode.q3_k import scale_code
from edgeq.kernels_cpu.encode.rounding import store_two_bits
from edgeq.kernels_cpu.encode.search import (
    importance_weights,
    row_mean_square,
    search_by_moves,
    search_symmetric_scale,
)
from edgeq.kernels_cpu.jit import kernel
from edgeq.kernels_cpu.scalar import ZERO, load_half, nearest_int, store_half

_NMAX = 4
_ONE = np.float32(1)
_TWO = np.float32(2)
_LEVELS = np.float32(-32)


@kernel
def _round_scales(scales, codes):
    """Float scale and codes −32..31 (float32) by the largest."""
    peak = ZERO
    for scale in scales:
        peak = scale if abs(scale) > abs(peak) else peak
    if peak == ZERO:
        codes[:] = _LEVELS
        return ZERO
    inverse = _LEVELS / peak
    for j in range(16):
        codes[j] = np.float32(min(max(nearest_int(inverse * scales[j]), -32), 31))
    return _ONE / inverse


@kernel
def _store(x, d, scale_codes, block, codes):
    """Codes −4..3 and scale codes −32..31, both float32; False when d overflows float16."""
    fine = store_half(block, 108, d)
    for j in range(4):
        high = 0
        for k in range(4):
            high |= ((np.int64(scale_codes[j + 4 * k]) + 32) >> 4) << (2 * k)
        block[104 + j] = np.uint8(high)
    for j in range(8):
        low, upper = np.int64(scale_codes[j]) + 32, np.int64(scale_codes[j + 8]) + 32
        block[96 + j] = np.uint8((low & 15) | ((upper & 15) << 4))
    _requantize(x, block, codes)
    for i in range(32):
        bits = 0
        for k in range(8):
            bits |= np.int64(codes[i + 32 * k] >= ZERO) << k
        block[i] = np.uint8(bits)
    for i in range(256):
        codes[i] = codes[i] if codes[i] >= ZERO else codes[i] + np.float32(_NMAX)
    store_two_bits(codes, block, 32)
    return fine


@kernel
def _requantize(x, block, codes):
    """Round again with the scales as stored; a zero scale leaves the codes alone."""
    d = load_half(block, 108)
    for j in range(16):
        scale = d * np.float32(scale_code(block, j))
        if scale == ZERO:
            continue
        for i in range(j * 16, j * 16 + 16):
            codes[i] = np.float32(min(max(nearest_int(x[i] / scale), -_NMAX), _NMAX - 1))


@kernel
def encode_blocks(first, last, values, out):
    """Blocks first..last of float32 ``[n, 256]``, weighted by x²; False when a scale overflows float16."""
    codes, scales, scale_codes = np.empty(256, np.float32), np.empty(16, np.float32), np.empty(16, np.float32)
    for b in range(first, last):
        for j in range(16):
            part = slice(j * 16, j * 16 + 16)
            scales[j] = search_by_moves(values[b, part], _NMAX, codes[part])
            if not np.isfinite(scales[j]):
                return False
        d = _round_scales(scales, scale_codes)
        if not _store(values[b], d, scale_codes, out[b], codes):
            return False
    return True


@kernel
def encode_rows(first, last, values, importance, out):
    """Rows first..last of float32 ``[rows, columns]`` under importance ``[columns]``."""
    codes, weights, trial = np.empty(256, np.float32), np.empty(16, np.float32), np.empty(16, np.float32)
    scales, scale_codes, totals = np.empty(16, np.float32), np.empty(16, np.float32), np.empty(16, np.float32)
    for row in range(first, last):
        for b in range(importance.size // 256):
            block = values[row, b * 256 : b * 256 + 256]
            mean_square = _TWO * row_mean_square(block)
            for j in range(16):
                x, found = block[j * 16 : j * 16 + 16], codes[j * 16 : j * 16 + 16]
                importance_weights(
                    x, importance[b * 256 + j * 16 : b * 256 + j * 16 + 16], mean_square, weights
                )
                totals[j] = ZERO
                for weight in weights:
                    totals[j] += weight
                scales[j] = search_symmetric_scale(x, weights, _NMAX, found, trial)
                if not np.isfinite(scales[j]):
                    return False
            d = search_symmetric_scale(scales, totals, 32, scale_codes, trial)
            if not _store(block, d, scale_codes, out[row, b * 110 : b * 110 + 110], codes):
                return False
    return True
