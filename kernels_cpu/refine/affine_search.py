"""Search of scale and min with one block per lane: twin of ``edgeq.formats.blocks.refine.affine_search``.

Codes are rounded and summed in one loop and never stored; no contraction and the twin's order of sums.
"""

from __future__ import annotations

import numpy as np

from edgeq.kernels_cpu import simd
from edgeq.kernels_cpu.encode.tiles import load, store
from edgeq.kernels_cpu.jit import helper
from edgeq.kernels_cpu.scalar import ZERO

_ROUND = np.float32(12582912.0)  # 1.5 · 2^23: adding it leaves no bits for a fraction
_ONE = np.float32(1)
_TWO = np.float32(2)
_NOTHING = np.float32(-np.inf)

# Vectors of the scratch of a block: what ``Totals``, ``Sums`` and ``Fit`` are in the twin.
TOTAL_W, TOTAL_WX, INVERSE_W, MEAN = 0, 1, 2, 3
SUM_L, SUM_L2, SUM_LX = 0, 1, 2
SCALE, LOW, CURVATURE, SLOPE = 0, 1, 2, 3


@helper
def inverse_of(unit):
    """1 / unit; 0 where the unit is 0."""
    return simd.select(unit > ZERO, _ONE / unit, ZERO)


@helper
def clamped(level, top):
    """0..top; NaN becomes 0."""
    return simd.minimum(simd.maximum(level, ZERO), top)


@helper
def whole_within(level, top):
    """Rounded, ties to even, to 0..top; NaN becomes 0."""
    return simd.minimum(simd.maximum(level + _ROUND, _ROUND), top + _ROUND) - _ROUND


@helper
def store_totals(wide, x, weights, totals):
    sum_w, sum_wx = simd.splat(wide, ZERO), simd.splat(wide, ZERO)
    for i in range(x.shape[0]):
        weight = load(wide, weights, i)
        sum_w += weight
        sum_wx += weight * load(wide, x, i)
    store(wide, totals, TOTAL_W, sum_w)
    store(wide, totals, TOTAL_WX, sum_wx)
    inverse = inverse_of(sum_w)
    store(wide, totals, INVERSE_W, inverse)
    store(wide, totals, MEAN, sum_wx * inverse)


@helper
def code_sums(wide, x, weights, scale, low, top):
    """Σ w·l, Σ w·l² and Σ w·l·x of the codes l nearest to (x + low) / scale."""
    inverse = inverse_of(scale)
    sum_l, sum_l2, sum_lx = simd.splat(wide, ZERO), simd.splat(wide, ZERO), simd.splat(wide, ZERO)
    for i in range(x.shape[0]):
        value = load(wide, x, i)
        code = whole_within((value + low) * inverse, top)
        weighted = load(wide, weights, i) * code
        sum_l += weighted
        sum_l2 += weighted * code
        sum_lx += weighted * value
    return sum_l, sum_l2, sum_lx


@helper
def sums_and_error(wide, x, weights, scale, low, top, sums):
    """The same sums, stored, and the weighted squared error of the codes."""
    inverse = inverse_of(scale)
    sum_l, sum_l2, sum_lx = simd.splat(wide, ZERO), simd.splat(wide, ZERO), simd.splat(wide, ZERO)
    error = simd.splat(wide, ZERO)
    for i in range(x.shape[0]):
        value, weight = load(wide, x, i), load(wide, weights, i)
        code = whole_within((value + low) * inverse, top)
        weighted = weight * code
        sum_l += weighted
        sum_l2 += weighted * code
        sum_lx += weighted * value
        difference = (scale * code - low) - value
        error += weight * (difference * difference)
    store(wide, sums, SUM_L, sum_l)
    store(wide, sums, SUM_L2, sum_l2)
    store(wide, sums, SUM_LX, sum_lx)
    return error


@helper
def error_of(wide, x, weights, scale, low, top):
    """The weighted squared error of the nearest codes."""
    inverse = inverse_of(scale)
    error = simd.splat(wide, ZERO)
    for i in range(x.shape[0]):
        value = load(wide, x, i)
        code = whole_within((value + low) * inverse, top)
        difference = (scale * code - low) - value
        error += load(wide, weights, i) * (difference * difference)
    return error


@helper
def least_squares(wide, sum_l, sum_l2, sum_lx, totals, lowest):
    """Scale, low, curvature, slope, gain, and the mask of lanes where they are a solution."""
    total_wx = load(wide, totals, TOTAL_WX)
    slope = sum_l * load(wide, totals, INVERSE_W)
    curvature = sum_l2 - sum_l * slope
    scale = (sum_lx - slope * total_wx) / curvature
    low = scale * slope - load(wide, totals, MEAN)
    clipped = low < lowest
    if simd.any_of(clipped):
        scale = simd.select(clipped, (sum_lx + lowest * sum_l) / sum_l2, scale)
        low = simd.select(clipped, lowest, low)
    shrunk = (scale * sum_l2 - _TWO * (low * sum_l + sum_lx)) * scale
    gain = -(shrunk + (low * load(wide, totals, TOTAL_W) + _TWO * total_wx) * low)
    return scale, low, curvature, slope, gain, (curvature > ZERO) & (scale > ZERO)


@helper
def _range(wide, x):
    low = load(wide, x, 0)
    high = low
    for i in range(1, x.shape[0]):
        value = load(wide, x, i)
        low = simd.minimum(value, low)
        high = simd.maximum(value, high)
    return low, high


@helper
def keep_fit(wide, mask, fit, best):
    """``best`` becomes the fit in the lanes of the mask."""
    scale, low, curvature, slope, _, _ = fit
    store(wide, best, SCALE, simd.select(mask, scale, load(wide, best, SCALE)))
    store(wide, best, LOW, simd.select(mask, low, load(wide, best, LOW)))
    store(wide, best, CURVATURE, simd.select(mask, curvature, load(wide, best, CURVATURE)))
    store(wide, best, SLOPE, simd.select(mask, slope, load(wide, best, SLOPE)))


@helper
def search(wide, x, weights, scale, low, sums, totals, top, lowest, starts, steps, best):
    """Leave the best fit in ``best``; scale, low and ``sums`` are ``Given`` of the twin, top is nmax.

    The best so far is kept in variables: where memory is updated by a mask, LLVM writes masked stores, which
    cost as much as the rounding.
    """
    best_scale, best_low = scale, low
    sum_l, sum_l2, sum_lx = load(wide, sums, SUM_L), load(wide, sums, SUM_L2), load(wide, sums, SUM_LX)
    scale, low, best_curvature, best_slope, gain, solved = least_squares(
        wide, sum_l, sum_l2, sum_lx, totals, lowest
    )
    better = solved & (gain > _NOTHING)
    best_gain = simd.select(better, gain, _NOTHING)
    best_scale = simd.select(better, scale, best_scale)
    best_low = simd.select(better, low, best_low)
    begin, high = _range(wide, x)
    begin = simd.minimum(begin, -lowest)
    step = (high - begin) / top
    for which in range(len(starts) + 1):
        if which:
            low = -(begin + starts[which - 1, 0] * step)
            low = simd.select(low < lowest, lowest, low)
            scale = (high - starts[which - 1, 1] * step + low) / top
        for _ in range(steps):
            sum_l, sum_l2, sum_lx = code_sums(wide, x, weights, scale, low, top)
            scale, low, curvature, slope, gain, solved = least_squares(
                wide, sum_l, sum_l2, sum_lx, totals, lowest
            )
            better = solved & (gain > best_gain)
            best_gain = simd.select(better, gain, best_gain)
            best_scale = simd.select(better, scale, best_scale)
            best_low = simd.select(better, low, best_low)
            best_curvature = simd.select(better, curvature, best_curvature)
            best_slope = simd.select(better, slope, best_slope)
    store(wide, best, SCALE, best_scale)
    store(wide, best, LOW, best_low)
    store(wide, best, CURVATURE, best_curvature)
    store(wide, best, SLOPE, best_slope)
