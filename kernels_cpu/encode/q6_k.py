"""Encoder of Q6_K: twin of ``edgeq.formats.blocks.q6_k``, where the layout is described."""

from __future__ import annotations

import numpy as np

from edgeq.kernels_cpu.encode.search import search_symmetric_scale
from edgeq.kernels_cpu.jit import kernel
from edgeq.kernels_cpu.scalar import ZERO, load_half, nearest_int, store_half

_ONE = np.float32(1)
_LEVELS = np.float32(-128)
_ZERO_BLOCK = np.float32(1e-15)  # GROUP_MAX_EPS


@kernel
def _encode_block(x, weights, block, codes, trial, scales):
    """256 values with the weights of their squared errors; False when a scale overflows float16."""
    peak = ZERO
    for sub in range(16):
        part = slice(sub * 16, sub * 16 + 16)
        scales[sub] = search_symmetric_scale(x[part], weights[part], 32, codes[part], trial)
        if not np.isfinite(scales[sub]):
            return False
        if abs(scales[sub]) > abs(peak):
            peak = scales[sub]
    if abs(peak) < _ZERO_BLOCK:
        block[:] = np.uint8(0)
        return True
    inverse = _LEVELS / peak
    fine = store_half(block, 208, _ONE / inverse)
    for sub in range(16):
        block[192 + sub] = np.uint8(min(nearest_int(inverse * scales[sub]), 127) & 0xFF)
    _requantize(x, block, codes)
    _store_codes(codes, block)
    return fine


@kernel
def _requantize(x, block, codes):
    """Round again with the scales as stored; a zero scale leaves the codes alone."""
    d = load_half(block, 208)
    for sub in range(16):
        scale = d * np.float32(np.int8(block[192 + sub]))
        if scale == ZERO:
            continue
        for i in range(sub * 16, sub * 16 + 16):
            codes[i] = np.float32(min(max(nearest_int(x[i] / scale), -32), 31))


@kernel
def _store_codes(codes, block):
    """Codes −32..31 (float32 [256]) plus 32 into ql and qh."""
    for half in range(2):
        for i in range(32):
            at = half * 128 + i
            q0, q1 = np.int64(codes[at]) + 32, np.int64(codes[at + 32]) + 32
            q2, q3 = np.int64(codes[at + 64]) + 32, np.int64(codes[at + 96]) + 32
            block[half * 64 + i] = np.uint8((q0 & 15) | ((q2 & 15) << 4))
            block[half * 64 + 32 + i] = np.uint8((q1 & 15) | ((q3 & 15) << 4))
            high = (q0 >> 4) | ((q1 >> 4) << 2) | ((q2 >> 4) << 4) | ((q3 >> 4) << 6)
            block[128 + half * 32 + i] = np.uint8(high)


@kernel
def encode_blocks(first, last, values, out):
    """Blocks first..last of float32 ``[n, 256]``, weighted by x²; False when a scale overflows float16."""
    codes, weights = np.empty(256, np.float32), np.empty(256, np.float32)
    trial, scales = np.empty(16, np.float32), np.empty(16, np.float32)
    fine = True
    for b in range(first, last):
        for i in range(256):
            weights[i] = values[b, i] * values[b, i]
        fine &= _encode_block(values[b], weights, out[b], codes, trial, scales)
    return fine


@kernel
def encode_rows(first, last, values, importance, out):
    """Rows first..last of float32 ``[rows, columns]`` under importance ``[columns]``."""
    codes = np.empty(256, np.float32)
    trial, scales = np.empty(16, np.float32), np.empty(16, np.float32)
    fine = True
    for row in range(first, last):
        for b in range(importance.size // 256):
            x = values[row, b * 256 : b * 256 + 256]
            weights = importance[b * 256 : b * 256 + 256]
            block = out[row, b * 210 : b * 210 + 210]
            fine &= _encode_block(x, weights, block, codes, trial, scales)
    return fine
