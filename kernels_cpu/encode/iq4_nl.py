"""Encoder of IQ4_NL: twin of ``edgeq.formats.blocks.iq4_nl``, where the layout is described."""

from __future__ import annotations

import numpy as np

from edgeq.kernels_cpu.encode.nonlinear import LANES, search_level_scales, store_codes
from edgeq.kernels_cpu.encode.rounding import store_nibbles
from edgeq.kernels_cpu.encode.weights import importance_weights, row_mean_square
from edgeq.kernels_cpu.jit import kernel
from edgeq.kernels_cpu.scalar import ZERO, store_half

_ONE = np.float32(1)
_TWO = np.float32(2)


@kernel
def _store(x, d, block, codes):
    store_codes(x, _ONE / d if d != ZERO else ZERO, codes)
    store_nibbles(codes, block, 2)
    return store_half(block, 0, d)


@kernel
def encode_blocks(first, last, values, out):
    """Blocks first..last of float32 ``[n, 32]``, weighted by x²; False when a scale overflows float16."""
    x, weights = np.empty((32, LANES), np.float32), np.empty((32, LANES), np.float32)
    scales, codes = np.empty(LANES, np.float32), np.empty(32, np.uint8)
    fine = True
    for group in range(first, last, LANES):
        x[:] = ZERO
        count = min(LANES, last - group)
        for lane in range(count):
            for i in range(32):
                x[i, lane] = values[group + lane, i]
        for i in range(32):
            for lane in range(LANES):
                weights[i, lane] = x[i, lane] * x[i, lane]
        search_level_scales(x, weights, scales)
        for lane in range(count):
            fine &= _store(values[group + lane], scales[lane], out[group + lane], codes)
    return fine


@kernel
def encode_rows(first, last, values, importance, out):
    """Rows first..last of float32 ``[rows, columns]`` under importance ``[columns]``."""
    x, weights = np.empty((32, LANES), np.float32), np.empty((32, LANES), np.float32)
    scales, codes, column = np.empty(LANES, np.float32), np.empty(32, np.uint8), np.empty(32, np.float32)
    n_blocks = importance.size // 32
    fine = True
    for row in range(first, last):
        for group in range(0, n_blocks, LANES):
            x[:] = ZERO
            weights[:] = ZERO
            count = min(LANES, n_blocks - group)
            for lane in range(count):
                at = (group + lane) * 32
                block = values[row, at : at + 32]
                importance_weights(block, importance[at : at + 32], _TWO * row_mean_square(block), column)
                for i in range(32):
                    x[i, lane], weights[i, lane] = block[i], column[i]
            search_level_scales(x, weights, scales)
            for lane in range(count):
                b = group + lane
                block = values[row, b * 32 : b * 32 + 32]
                fine &= _store(block, scales[lane], out[row, b * 18 : b * 18 + 18], codes)
    return fine
