"""What the encoders of IQ4_NL and IQ4_XS share: twin of ``edgeq.formats.blocks.nonlinear``.

Sixteen sub-blocks of 32 values go side by side, one per lane of ``[32, LANES]`` arrays: so a lane's sums run
in ggml's order, and the loops over lanes vectorise. A level is found by comparing with the fifteen middles
between levels, written out; a table look-up would not vectorise. NaN gets the last level, as in ggml.
"""

from __future__ import annotations

import numpy as np

from edgeq.kernels_cpu.jit import kernel
from edgeq.kernels_cpu.scalar import ZERO

LANES = 16
_ONE = np.float32(1)
_ZERO_BLOCK = np.float32(1e-15)  # GROUP_MAX_EPS
_TRIES = 7
_LOWEST = np.float32(-127)
_MIDDLES = np.array(
    [-115.5, -93.5, -74, -57, -42, -28.5, -16, -4.5, 7, 19, 31.5, 45.5, 61, 79, 101], np.float32
)
_STEPS = np.array([23, 21, 18, 16, 14, 13, 12, 11, 12, 12, 13, 15, 16, 20, 24], np.float32)


@kernel
def _level(x):
    """The level nearest to x, the upper one of two equally near; sums of whole numbers, so exact."""
    level = _LOWEST
    for k in range(15):
        level += ZERO if x < _MIDDLES[k] else _STEPS[k]
    return level


@kernel
def store_codes(x, inverse, codes):
    """The codes of the levels nearest to x · inverse, uint8."""
    codes[:] = np.uint8(0)
    for k in range(15):
        middle = _MIDDLES[k]
        for i in range(x.size):
            codes[i] += np.uint8(0) if x[i] * inverse < middle else np.uint8(1)


@kernel
def _trial(x, weights, inverse, sum_lx, sum_l2):
    """Σ w·level·x and Σ w·level² of each lane, for the codes of its inverse scale."""
    sum_lx[:] = ZERO
    sum_l2[:] = ZERO
    for i in range(x.shape[0]):
        for lane in range(inverse.size):
            level = _level(x[i, lane] * inverse[lane])
            weighted = weights[i, lane] * level
            sum_lx[lane] += weighted * x[i, lane]
            sum_l2[lane] += weighted * level


@kernel
def search_level_scales(x, weights, scales):
    """Scales (float32 ``[LANES]``) of x ≈ scale · level, of each lane of float32 ``[32, LANES]``."""
    peak, inverse, best = (
        np.zeros(LANES, np.float32),
        np.empty(LANES, np.float32),
        np.empty(LANES, np.float32),
    )
    sum_lx, sum_l2 = np.empty(LANES, np.float32), np.empty(LANES, np.float32)
    for i in range(x.shape[0]):
        for lane in range(peak.size):
            peak[lane] = x[i, lane] if abs(x[i, lane]) > abs(peak[lane]) else peak[lane]
    for lane in range(LANES):
        inverse[lane] = _ONE / (-peak[lane] / _LOWEST)
    _trial(x, weights, inverse, sum_lx, sum_l2)
    for lane in range(LANES):
        scales[lane] = sum_lx[lane] / sum_l2[lane] if sum_l2[lane] > ZERO else ZERO
        best[lane] = scales[lane] * sum_lx[lane]
    for i in range(-_TRIES, _TRIES + 1):
        for lane in range(LANES):
            inverse[lane] = (np.float32(i) + _LOWEST) / peak[lane]
        _trial(x, weights, inverse, sum_lx, sum_l2)
        for lane in range(LANES):
            if sum_l2[lane] > ZERO and sum_lx[lane] * sum_lx[lane] > best[lane] * sum_l2[lane]:
                scales[lane] = sum_lx[lane] / sum_l2[lane]
                best[lane] = scales[lane] * sum_lx[lane]
    for lane in range(LANES):
        if abs(peak[lane]) < _ZERO_BLOCK:
            scales[lane] = ZERO
