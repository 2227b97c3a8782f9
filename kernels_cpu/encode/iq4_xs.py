"""Encoder of IQ4_XS: twin of ``edgeq.formats.blocks.iq4_xs``, where the layout is described."""

from __future__ import annotations

import numpy as np

from edgeq.kernels_cpu.encode.nonlinear import search_level_scale, store_codes
from edgeq.kernels_cpu.encode.rounding import store_nibbles
from edgeq.kernels_cpu.encode.search import importance_weights, row_mean_square
from edgeq.kernels_cpu.jit import kernel
from edgeq.kernels_cpu.scalar import ZERO, nearest_int, store_half

_ONE = np.float32(1)
_TWO = np.float32(2)
_LEVELS = np.float32(32)


@kernel
def _encode_block(x, weights, block, levels, codes, scales):
    """256 values with the weights of their squared errors; False when a scale overflows float16."""
    peak = ZERO
    for j in range(8):
        part = slice(j * 32, j * 32 + 32)
        scales[j] = search_level_scale(x[part], weights[part], levels)
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
    weights, levels, codes = np.empty(256, np.float32), np.empty(32, np.float32), np.empty(32, np.uint8)
    scales = np.empty(8, np.float32)
    fine = True
    for b in range(first, last):
        for i in range(256):
            weights[i] = values[b, i] * values[b, i]
        fine &= _encode_block(values[b], weights, out[b], levels, codes, scales)
    return fine


@kernel
def encode_rows(first, last, values, importance, out):
    """Rows first..last of float32 ``[rows, columns]`` under importance ``[columns]``."""
    weights, levels, codes = np.empty(256, np.float32), np.empty(32, np.float32), np.empty(32, np.uint8)
    scales = np.empty(8, np.float32)
    fine = True
    for row in range(first, last):
        for b in range(importance.size // 256):
            x = values[row, b * 256 : b * 256 + 256]
            importance_weights(x, importance[b * 256 : b * 256 + 256], _TWO * row_mean_square(x), weights)
            fine &= _encode_block(x, weights, out[row, b * 136 : b * 136 + 136], levels, codes, scales)
    return fine
