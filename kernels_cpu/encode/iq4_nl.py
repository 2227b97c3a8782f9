"""Encoder of IQ4_NL: twin of ``edgeq.formats.blocks.iq4_nl``, where the layout is described."""

from __future__ import annotations

import numpy as np

from edgeq.kernels_cpu.encode.nonlinear import search_level_scale, store_codes
from edgeq.kernels_cpu.encode.rounding import store_nibbles
from edgeq.kernels_cpu.encode.search import importance_weights, row_mean_square
from edgeq.kernels_cpu.jit import kernel
from edgeq.kernels_cpu.scalar import ZERO, store_half

_ONE = np.float32(1)
_TWO = np.float32(2)


@kernel
def _encode_block(x, weights, block, levels, codes):
    d = search_level_scale(x, weights, levels)
    store_codes(x, _ONE / d if d != ZERO else ZERO, codes)
    store_nibbles(codes, block, 2)
    return store_half(block, 0, d)


@kernel
def encode_blocks(first, last, values, out):
    """Blocks first..last of float32 ``[n, 32]``, weighted by x²; False when a scale overflows float16."""
    weights, levels, codes = np.empty(32, np.float32), np.empty(32, np.float32), np.empty(32, np.uint8)
    fine = True
    for b in range(first, last):
        for i in range(32):
            weights[i] = values[b, i] * values[b, i]
        fine &= _encode_block(values[b], weights, out[b], levels, codes)
    return fine


@kernel
def encode_rows(first, last, values, importance, out):
    """Rows first..last of float32 ``[rows, columns]`` under importance ``[columns]``."""
    weights, levels, codes = np.empty(32, np.float32), np.empty(32, np.float32), np.empty(32, np.uint8)
    fine = True
    for row in range(first, last):
        for b in range(importance.size // 32):
            x = values[row, b * 32 : b * 32 + 32]
            importance_weights(x, importance[b * 32 : b * 32 + 32], _TWO * row_mean_square(x), weights)
            fine &= _encode_block(x, weights, out[row, b * 18 : b * 18 + 18], levels, codes)
    return fine
