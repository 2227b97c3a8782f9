"""Encoder of Q4_1: twin of ``edgeq.formats.blocks.q4_1``, where the layout is described."""

from __future__ import annotations

import numpy as np

from edgeq.kernels_cpu.encode.rounding import round_by_range, shift_codes, store_nibbles
from edgeq.kernels_cpu.encode.search import importance_weights, row_mean_square, search_scale_and_min
from edgeq.kernels_cpu.jit import kernel
from edgeq.kernels_cpu.scalar import store_half

_FIRST = np.float32(-0.9)
_STEP = np.float32(0.05)
_STEPS = 36


@kernel
def _store(d, m, codes, block):
    store_nibbles(codes, block, 4)
    fine = store_half(block, 0, d)
    return fine & store_half(block, 2, m)


@kernel
def encode_blocks(first, last, values, out):
    """Blocks first..last of float32 ``[n, 32]``; False when a scale overflows float16."""
    codes = np.empty(32, np.uint8)
    fine = True
    for b in range(first, last):
        d, m = round_by_range(values[b], 15, codes)
        fine &= _store(d, m, codes, out[b])
    return fine


@kernel
def encode_rows(first, last, values, importance, out):
    """Rows first..last of float32 ``[rows, columns]`` under importance ``[columns]``."""
    weights, found, trial = np.empty(32, np.float32), np.empty(32, np.float32), np.empty(32, np.float32)
    codes = np.empty(32, np.uint8)
    size = out.shape[1] // (importance.size // 32)
    fine = True
    for row in range(first, last):
        mean_square = row_mean_square(values[row])
        for b in range(importance.size // 32):
            x = values[row, b * 32 : b * 32 + 32]
            importance_weights(x, importance[b * 32 : b * 32 + 32], mean_square, weights)
            d, low = search_scale_and_min(x, weights, 15, _FIRST, _STEP, _STEPS, found, trial)
            shift_codes(found, 0, codes)
            fine &= _store(d, -low, codes, out[row, b * size : b * size + size])
    return fine
