"""Encoder of Q4_K: twin of ``edgeq.formats.blocks.q4_k``, where the layout is described."""

from __future__ import annotations

import numpy as np

from edgeq.kernels_cpu.encode.super_block import encode_super_block, encode_super_block_weighted
from edgeq.kernels_cpu.jit import kernel

_NMAX = 15
_FIRST = np.float32(-1.0)
_STEP = np.float32(0.1)
_STEPS = 20


@kernel
def _store_codes(codes, block):
    for pair in range(4):
        for i in range(pair * 64, pair * 64 + 32):
            low, high = np.int64(codes[i]), np.int64(codes[i + 32])
            block[16 + i - pair * 32] = np.uint8(low | (high << 4))


@kernel
def encode_blocks(first, last, values, out):
    """Blocks first..last of float32 ``[n, 256]``; False when a scale overflows float16."""
    codes = np.empty(256, np.float32)
    fine = True
    for b in range(first, last):
        fine &= encode_super_block(values[b], _NMAX, _FIRST, _STEP, _STEPS, out[b], codes)
        _store_codes(codes, out[b])
    return fine


@kernel
def encode_rows(first, last, values, importance, out):
    """Rows first..last of float32 ``[rows, columns]`` under importance ``[columns]``."""
    codes = np.zeros(256, np.float32)
    size = out.shape[1] // (importance.size // 256)
    fine = True
    for row in range(first, last):
        for b in range(importance.size // 256):
            x = values[row, b * 256 : b * 256 + 256]
            block = out[row, b * size : b * size + size]
            weights = importance[b * 256 : b * 256 + 256]
            fine &= encode_super_block_weighted(x, weights, _NMAX, block, codes)
            _store_codes(codes, block)
    return fine
