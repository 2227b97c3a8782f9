"""What the encoders of IQ4_NL and IQ4_XS share: twin of ``edgeq.formats.blocks.nonlinear``.

As many sub-blocks of 32 values as lanes go side by side, one per lane of ``tiles``, so that a lane's sums
run in ggml's order. The fifteen inverse scales (−134 to −120) / peak are so close to each other that over all
of them a value, times the inverse, passes one middle between levels at most: the middles nearest to each
other on one side of zero, 115.5 and 93.5, are a factor of 1.24 apart, and 134 / 120 is 1.12. So each
value's level, the middle above it and the step to the next level are found once, and a trial costs one comparison
of a value instead of fifteen.
"""

from __future__ import annotations

import numpy as np

from edgeq.kernels_cpu import simd
from edgeq.kernels_cpu.encode.lane_search import signed_peak
from edgeq.kernels_cpu.encode.tiles import load, store, vectors
from edgeq.kernels_cpu.jit import helper
from edgeq.kernels_cpu.scalar import ZERO

_ONE = np.float32(1)
_HALF = np.float32(0.5)
_ZERO_BLOCK = np.float32(1e-15)  # GROUP_MAX_EPS
_TRIES = 7
_LOWEST = np.float32(-127)
_MIDDLES = np.array(
    [-115.5, -93.5, -74, -57, -42, -28.5, -16, -4.5, 7, 19, 31.5, 45.5, 61, 79, 101], np.float32
)
# The last one twice: nothing is above it.
_LEVELS = np.array(
    [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113, 113], np.float32
)


@helper
def nearest_level(wide, x):
    """The level nearest to x, the upper one of two equally near; NaN gets the last one, as in ggml."""
    level = simd.splat(wide, _LOWEST)
    for k in range(15):
        level = simd.select(x < _MIDDLES[k], level, _LEVELS[k + 1])
    return level


@helper
def nearest_code(wide, x):
    """Its code, int32."""
    found = simd.splat(wide, 0)
    for k in range(15):
        found += simd.select(x < _MIDDLES[k], simd.splat(wide, 0), 1)
    return found


@helper
def store_codes(sixteen, at, inverse, block, to):
    """The codes of the levels nearest to the 32 floats at an address, times inverse, as nibbles at byte ``to``."""
    low = nearest_code(sixteen, simd.load(sixteen, at) * inverse)
    high = nearest_code(sixteen, simd.load(sixteen, at + 64) * inverse)
    simd.store(simd.address(block) + to, simd.to_uint8(low | (high << 4)))


@helper
def scratch(wide):
    """Tiles of values, weights, levels, steps and middles, and a row of scales."""
    return vectors(wide, 160).reshape(5, 32, simd.lanes_of(wide)), vectors(wide, 1)


@helper
def square_tile(wide, x, squares):
    """The second tile becomes x²."""
    for i in range(x.shape[0]):
        store(wide, squares, i, load(wide, x, i) * load(wide, x, i))


@helper
def _first_sums(wide, x, weights, inverse):
    """Σ w·level·x and Σ w·level² of each lane, for the levels of its inverse scale."""
    sum_lx, sum_l2 = simd.splat(wide, ZERO), simd.splat(wide, ZERO)
    for i in range(x.shape[0]):
        value = load(wide, x, i)
        level = nearest_level(wide, value * inverse)
        weighted = load(wide, weights, i) * level
        sum_lx += weighted * value
        sum_l2 += weighted * level
    return sum_lx, sum_l2


@helper
def _bracket(wide, x, inverse, last_inverse, levels, steps, middles):
    """Of each value the lowest level that it has between two inverse scales, and what is next above."""
    for i in range(x.shape[0]):
        value = load(wide, x, i)
        unit = simd.minimum(value * inverse, value * last_inverse)
        level, above = simd.splat(wide, _LEVELS[0]), simd.splat(wide, _LEVELS[1])
        for k in range(15):
            level = simd.select(unit < _MIDDLES[k], level, _LEVELS[k + 1])
            above = simd.select(unit < _MIDDLES[k], above, _LEVELS[k + 2])
        step = above - level
        store(wide, levels, i, level)
        store(wide, steps, i, step)
        store(wide, middles, i, level + step * _HALF)  # exact, as all of these are


@helper
def _sums(wide, tiles, inverse):
    """The same sums for an inverse scale between those two."""
    x, weights, levels, steps, middles = tiles[0], tiles[1], tiles[2], tiles[3], tiles[4]
    sum_lx, sum_l2 = simd.splat(wide, ZERO), simd.splat(wide, ZERO)
    for i in range(x.shape[0]):
        value = load(wide, x, i)
        passed = simd.select(value * inverse < load(wide, middles, i), ZERO, load(wide, steps, i))
        level = load(wide, levels, i) + passed
        weighted = load(wide, weights, i) * level
        sum_lx += weighted * value
        sum_l2 += weighted * level
    return sum_lx, sum_l2


@helper
def search_level_scales(wide, tiles):
    """Scales of x ≈ scale · level, of each lane; of ``tiles`` (see ``scratch``) the first two are filled."""
    x, weights = tiles[0], tiles[1]
    peak = signed_peak(wide, x)
    zero = abs(peak) < _ZERO_BLOCK
    peak = simd.select(zero, _ONE, peak)
    sum_lx, sum_l2 = _first_sums(wide, x, weights, _ONE / (-peak / _LOWEST))
    scale = simd.select(sum_l2 > ZERO, sum_lx / sum_l2, ZERO)
    best = scale * sum_lx
    tries = np.float32(_TRIES)
    _bracket(wide, x, (_LOWEST - tries) / peak, (_LOWEST + tries) / peak, tiles[2], tiles[3], tiles[4])
    for i in range(-_TRIES, _TRIES + 1):
        sum_lx, sum_l2 = _sums(wide, tiles, (np.float32(i) + _LOWEST) / peak)
        better = sum_lx * sum_lx > simd.select(sum_l2 > ZERO, best * sum_l2, np.float32(np.inf))
        scale = simd.select(better, sum_lx / sum_l2, scale)
        best = simd.select(better, scale * sum_lx, best)
    return simd.select(zero, ZERO, scale)
