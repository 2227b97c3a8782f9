"""Encoder of Q5_0: twin of ``edgeq.formats.blocks.q5_0``, where the layout is described."""

from __future__ import annotations

import numpy as np

from edgeq.kernels_cpu.encode.rounding import round_by_peak, shift_codes, store_fifth_bits, store_nibbles
from edgeq.kernels_cpu.encode.search import importance_weights, row_mean_square, search_symmetric_scale
from edgeq.kernels_cpu.jit import kernel
from edgeq.kernels_cpu.scalar import store_half


@kernel
def _store(d, codes, block):
    store_fifth_bits(codes, block, 2)
    store_nibbles(codes, block, 6)
    return store_half(block, 0, d)


@kernel
def encode_blocks(first, last, values, out):
    """Blocks first..last of float32 ``[n, 32]``; False when a scale overflows float16."""
    codes = np.empty(32, np.uint8)
    fine = True
    for b in range(first, last):
        d = round_by_peak(values[b], 16, codes)
        fine &= _store(d, codes, out[b])
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
            d = search_symmetric_scale(x, weights, 16, found, trial)
            shift_codes(found, 16, codes)
            fine &= _store(d, codes, out[row, b * size : b * size + size])
    return fine
