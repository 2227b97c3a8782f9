"""The nearest code of a grid of levels."""

from __future__ import annotations

import numpy as np

from edgeq.kernels_cpu.jit import helper

_HALF = np.float32(0.5)


@helper
def nearest_code(value, scale, offset, levels, consecutive):
    """The code whose level · scale + offset is nearest to a value; 0 where the scale is 0.

    ``consecutive``: the levels are whole numbers, one after the other. Others are compared one by one.
    """
    if scale == np.float32(0):
        return np.uint8(0)
    level = (value - offset) / scale
    top = np.float32(levels.size - 1)
    if consecutive:
        return np.uint8(np.rint(min(max(level - levels[0], np.float32(0)), top)))
    code = 0
    for i in range(levels.size - 1):
        code += level >= (levels[i] + levels[i + 1]) * _HALF
    return np.uint8(code)
