"""What the encoders of IQ4_NL and IQ4_XS share: twin of ``edgeq.formats.blocks.nonlinear``.

A level is found by comparing with the fifteen middles between levels, written out so that the loop over the
values vectorises; a table look-up or a search in it would not. NaN gets the last level, as in ggml.
"""

from __future__ import annotations

import numpy as np

from edgeq.kernels_cpu.encode.search import signed_peak
from edgeq.kernels_cpu.jit import kernel
from edgeq.kernels_cpu.scalar import ZERO

_ONE = np.float32(1)
_ZERO_BLOCK = np.float32(1e-15)  # GROUP_MAX_EPS
_TRIES = 7
_LOWEST = np.float32(-127)
_MIDDLES = np.array(
    [-115.5, -93.5, -74, -57, -42, -28.5, -16, -4.5, 7, 19, 31.5, 45.5, 61, 79, 101], np.float32
)
_STEPS = np.array([23, 21, 18, 16, 14, 13, 12, 11, 12, 12, 13, 15, 16, 20, 24], np.float32)


@kernel
def _store_levels(x, inverse, levels):
    """The level nearest to each x · inverse, the upper one of two equally near."""
    for i in range(x.size):
        levels[i] = _LOWEST
    for k in range(15):
        middle, step = _MIDDLES[k], _STEPS[k]
        for i in range(x.size):
            levels[i] += ZERO if x[i] * inverse < middle else step


@kernel
def store_codes(x, inverse, codes):
    """The codes of those levels, uint8."""
    codes[:] = np.uint8(0)
    for k in range(15):
        middle = _MIDDLES[k]
        for i in range(x.size):
            codes[i] += np.uint8(0) if x[i] * inverse < middle else np.uint8(1)


@kernel
def _trial(x, weights, inverse, levels):
    _store_levels(x, inverse, levels)
    sum_lx, sum_l2 = ZERO, ZERO
    for i in range(x.size):
        weighted = weights[i] * levels[i]
        sum_lx += weighted * x[i]
        sum_l2 += weighted * levels[i]
    return sum_lx, sum_l2


@kernel
def search_level_scale(x, weights, levels):
    """Scale of x ≈ scale · level with least weighted squared error; ``levels`` is scratch of x's size."""
    peak = signed_peak(x)
    if abs(peak) < _ZERO_BLOCK:
        return ZERO
    sum_lx, sum_l2 = _trial(x, weights, _ONE / (-peak / _LOWEST), levels)
    scale = sum_lx / sum_l2 if sum_l2 > ZERO else ZERO
    best = scale * sum_lx
    for i in range(-_TRIES, _TRIES + 1):
        sum_lx, sum_l2 = _trial(x, weights, (np.float32(i) + _LOWEST) / peak, levels)
        if sum_l2 > ZERO and sum_lx * sum_lx > best * sum_l2:
            scale = sum_lx / sum_l2
            best = scale * sum_lx
    return scale
