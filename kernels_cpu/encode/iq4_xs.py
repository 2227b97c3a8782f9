"""Encoder of IQ4_XS: twin of ``edgeq.formats.blocks.iq4_xs``, where the layout is described."""

from __future__ import annotations

import numpy as np

from edgeq.kernels_cpu.encode.nonlinear import LANES, search_level_scales, store_codes
from edgeq.kernels_cpu.encode.rounding import store_nibbles
from edgeq.kernels_cpu.encode.weights import importance_weights, row_mean_square
from edgeq.kernels_cpu.jit import kernel
from edgeq.kernels_cpu.scalar import ZERO, nearest_int, store_half

_ONE = np.float32(1)
_TWO = np.float32(2)
_LEVELS = np.float32(32)


@kernel
def _fill(values, x, weights, lane, column):
    """Values and weights (``column``, float32 [256]) of a super-block into eight lanes from ``lane`` on."""
    for j in range(8):
        for i in range(32):
            x[i, lane + j], weights[i, lane + j] = values[j * 32 + i], column[j * 32 + i]


@kernel
def _store(x, scales, block, codes):
    """A super-block with its eight scales; False when one of them or d overflows."""
    peak = ZERO
    for j in range(8):
        if not np.isfinite(scales[j]):
            return False
        if abs(scales[j]) > abs(peak):
            peak = scales[j]
    d = -peak / _LEVELS
    inverse = _ONE / d if d != ZERO else ZERO
    high = 0
    for j in range(8):
        code = min(max(nearest_int(inverse * scales[j]), -32), 31)
        scale = d * np.float32(code)  # not the rounded d that is stored: ggml's quirk
        store_codes(x[j * 32 : j * 32 + 32], _ONE / scale if scale != ZERO else ZERO, codes)
        store_nibbles(codes, block, 8 + j * 16)
        low = (code + 32) & 15
        block[4 + (j >> 1)] = np.uint8(low if j % 2 == 0 else np.int64(block[4 + (j >> 1)]) | (low << 4))
        high |= ((code + 32) >> 4) << (2 * j)
    block[2] = np.uint8(high & 0xFF)
    block[3] = np.uint8(high >> 8)
    return store_half(block, 0, d)


@kernel
def encode_blocks(first, last, values, out):
    """Blocks first..last of float32 ``[n, 256]``, weighted by x²; False when a scale overflows float16."""
    x, weights = np.zeros((32, LANES), np.float32), np.zeros((32, LANES), np.float32)
    scales, codes, column = np.empty(LANES, np.float32), np.empty(32, np.uint8), np.empty(256, np.float32)
    fine = True
    for pair in range(first, last, 2):
        for b in range(pair, min(pair + 2, last)):
            for i in range(256):
                column[i] = values[b, i] * values[b, i]
            _fill(values[b], x, weights, (b - pair) * 8, column)
        search_level_scales(x, weights, scales)
        for b in range(pair, min(pair + 2, last)):
            fine &= _store(values[b], scales[(b - pair) * 8 : (b - pair) * 8 + 8], out[b], codes)
    return fine


@kernel
def encode_rows(first, last, values, importance, out):
    """Rows first..last of float32 ``[rows, columns]`` under importance ``[columns]``."""
    x, weights = np.zeros((32, LANES), np.float32), np.zeros((32, LANES), np.float32)
    scales, codes, column = np.empty(LANES, np.float32), np.empty(32, np.uint8), np.empty(256, np.float32)
    n_blocks = importance.size // 256
    fine = True
    for row in range(first, last):
        for pair in range(0, n_blocks, 2):
            for b in range(pair, min(pair + 2, n_blocks)):
                block = values[row, b * 256 : b * 256 + 256]
                mean_square = _TWO * row_mean_square(block)
                importance_weights(block, importance[b * 256 : b * 256 + 256], mean_square, column)
                _fill(block, x, weights, (b - pair) * 8, column)
            search_level_scales(x, weights, scales)
            for b in range(pair, min(pair + 2, n_blocks)):
                block = values[row, b * 256 : b * 256 + 256]
                part = scales[(b - pair) * 8 : (b - pair) * 8 + 8]
                fine &= _store(block, part, out[row, b * 136 : b * 136 + 136], codes)
    return fine
