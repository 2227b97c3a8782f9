"""Searches for x ≈ scale · level, on vectors: twins of ``symmetric_search`` in formats, with the same results.

Lanes are blocks, or the sub-blocks of one block; tiles are those of ``tiles``. No contraction, and the plain
twin's order of every sum.
"""

from __future__ import annotations

import numpy as np

from edgeq.formats.blocks.refine.symmetric_search import LOWER
from edgeq.kernels_cpu import simd
from edgeq.kernels_cpu.encode.tiles import load
from edgeq.kernels_cpu.half_floats import from_half, to_half
from edgeq.kernels_cpu.jit import helper
from edgeq.kernels_cpu.refine.levels import nearest
from edgeq.kernels_cpu.scalar import ZERO

_ONE = np.float32(1)
_ROUND = np.float32(12582912.0)  # 1.5 · 2^23
_SMALLEST = np.float32(1e-30)  # a scale that has an inverse
_INFINITY = np.float32(np.inf)


@helper
def inverse_of(scale):
    """1 / scale, and 0 for scales next to zero, for which every value is."""
    return simd.select(abs(scale) > _SMALLEST, _ONE / scale, ZERO)


@helper
def half(wide, x):
    """Rounded to float16; infinite where that overflows."""
    return from_half(wide, to_half(wide, x))


@helper
def _half_number(wide, x):
    four = simd.resized(wide, 4)
    return simd.lane(half(four, simd.splat(four, x)), 0)


@helper
def fit(wide, x, weights, levels, scale):
    """Σ w·r², Σ w·q·r and Σ w·q² of the levels q nearest to x / scale and the residuals r."""
    inverse = inverse_of(scale)
    error, slope, curvature = simd.splat(wide, ZERO), simd.splat(wide, ZERO), simd.splat(wide, ZERO)
    for i in range(x.shape[0]):
        value, weight = load(wide, x, i), load(wide, weights, i)
        level = nearest(wide, levels, value * inverse)
        residual = value - scale * level
        weighted = weight * level
        error += weight * residual * residual
        slope += weighted * residual
        curvature += weighted * level
    return error, slope, curvature


@helper
def _shift(slope, curvature):
    """What least squares adds to the scale."""
    return simd.select(curvature > ZERO, slope / curvature, ZERO)


@helper
def _fit_block(wide, x, weights, levels, scale, joined):
    """The same, summed over the lanes where they are one block."""
    error, slope, curvature = fit(wide, x, weights, levels, scale)
    if joined:
        error = simd.splat(wide, simd.sum_of(error))
        slope = simd.splat(wide, simd.sum_of(slope))
        curvature = simd.splat(wide, simd.sum_of(curvature))
    return error, slope, curvature


@helper
def search_scale(wide, x, weights, levels, d, search, joined):
    """In which lanes there is a better d, and d; ``joined`` lanes are parts of one block with one d."""
    best, slope, curvature = _fit_block(wide, x, weights, levels, d, joined)
    shift = _shift(slope, curvature)
    ideal, error = d + shift, best - slope * shift
    for factor in search.factors:
        scale = d * factor
        trial, slope, curvature = _fit_block(wide, x, weights, levels, scale, joined)
        shift = _shift(slope, curvature)
        trial = trial - slope * shift
        better = trial < error
        error = simd.select(better, trial, error)
        ideal = simd.select(better, scale + shift, ideal)
    limit = best * LOWER
    best, best_d = limit, d
    for _ in range(search.windows.size):
        scale = half(wide, ideal)
        trial, slope, curvature = _fit_block(wide, x, weights, levels, scale, joined)
        better = (trial < best) & (abs(scale) < _INFINITY)
        best = simd.select(better, trial, best)
        best_d = simd.select(better, scale, best_d)
        ideal = scale + _shift(slope, curvature)
    return (best < limit) & (limit < _INFINITY), best_d


@helper
def _ideal_scales(wide, x, weights, levels, scale, factors):
    """The error of all lanes, and each lane's best scale and its curvature."""
    here, slope, curvature = fit(wide, x, weights, levels, scale)
    shift = _shift(slope, curvature)
    ideal, error, bend = scale + shift, here - slope * shift, curvature
    for factor in factors:
        trial_scale = scale * factor
        trial, slope, curvature = fit(wide, x, weights, levels, trial_scale)
        shift = _shift(slope, curvature)
        trial = trial - slope * shift
        better = trial < error
        error = simd.select(better, trial, error)
        ideal = simd.select(better, trial_scale + shift, ideal)
        bend = simd.select(better, curvature, bend)
    return simd.sum_of(here), ideal, bend


@helper
def _nearest_codes(ideal, inverse, span):
    clipped = simd.minimum(simd.maximum(ideal * inverse, np.float32(span[0])), np.float32(span[1]))
    return (clipped + _ROUND) - _ROUND


@helper
def _inverse_number(scale):
    return _ONE / scale if abs(scale) > _SMALLEST else ZERO


@helper
def _common_scale(ideal, curvature, span, peaks):
    """The d whose multiples come nearest to the ideal scales, an error weighing as the curvature says."""
    largest = simd.max_of(abs(ideal))
    best, best_d = ZERO, ZERO
    for peak in peaks:
        inverse = _inverse_number(largest / (np.float32(span[0]) * peak))
        codes = _nearest_codes(ideal, inverse, span)
        weighted = curvature * codes
        product, square = simd.sum_of(weighted * ideal), simd.sum_of(weighted * codes)
        trial = product / square if square > ZERO else ZERO
        if trial * product > best:
            best, best_d = trial * product, trial
    return best_d


@helper
def _best_neighbours(wide, x, weights, levels, span, d, codes, window):
    """Of each lane's codes within the window, the one of least error, and its sums."""
    best = codes
    error, slope, curvature = fit(wide, x, weights, levels, d * codes)
    for step in range(1, window + 1):
        for sign in range(1, -2, -2):
            moved = codes + np.float32(sign * step)
            moved = simd.minimum(simd.maximum(moved, np.float32(span[0])), np.float32(span[1]))
            trial, trial_slope, trial_curvature = fit(wide, x, weights, levels, d * moved)
            better = trial < error
            best = simd.select(better, moved, best)
            error = simd.select(better, trial, error)
            slope = simd.select(better, trial_slope, slope)
            curvature = simd.select(better, trial_curvature, curvature)
    return best, error, slope, curvature


@helper
def search_scales(wide, x, weights, levels, span, d, codes, search):
    """If there is a better d (a number) with better scale codes (float32, a lane each), and both of them."""
    error, ideal, curvature = _ideal_scales(wide, x, weights, levels, d * codes, search.factors)
    common = _common_scale(ideal, curvature, span, search.peaks)
    limit = error * LOWER
    best, best_d, best_codes = limit, d, codes
    for start in search.starts:
        trial_d = _half_number(wide, common * start)
        trial = _nearest_codes(ideal, _inverse_number(trial_d), span)
        for window in search.windows:
            trial, errors, slope, curvature = _best_neighbours(
                wide, x, weights, levels, span, trial_d, trial, window
            )
            total = simd.sum_of(errors)
            if total < best and abs(trial_d) < _INFINITY:
                best, best_d, best_codes = total, trial_d, trial
            slope_of_d = simd.sum_of(slope * trial)
            bend = simd.sum_of(curvature * trial * trial)
            trial_d = _half_number(wide, trial_d + (slope_of_d / bend if bend > ZERO else ZERO))
    return best < limit and limit < _INFINITY, best_d, best_codes
