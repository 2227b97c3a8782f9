"""Searches for x ≈ scale · level, on vectors: twins of ``symmetric_search`` in formats, with the same results.

Lanes are blocks, or the sub-blocks of one block; tiles are those of ``tiles``. No contraction, and the plain
twin's order of every sum.
"""

from __future__ import annotations

import numpy as np

from edgeq.kernels_cpu import simd
from edgeq.kernels_cpu.encode.tiles import load, store
from edgeq.kernels_cpu.half_floats import from_half, to_half
from edgeq.kernels_cpu.jit import helper
from edgeq.kernels_cpu.refine.levels import nearest
from edgeq.kernels_cpu.scalar import ZERO

_ONE = np.float32(1)
LOWER = np.float32(1 - 2**-16)
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
def error_of(wide, x, weights, levels, scale):
    """Σ w·(x − scale · level)² for the levels nearest to x / scale."""
    inverse, error = inverse_of(scale), simd.splat(wide, ZERO)
    for i in range(x.shape[0]):
        value = load(wide, x, i)
        residual = value - scale * nearest(wide, levels, value * inverse)
        error += load(wide, weights, i) * residual * residual
    return error


@helper
def moments(wide, x, weights, weighted_x, levels, scale):
    """Σ w·x·level and Σ w·level² for those levels."""
    inverse, a, b = inverse_of(scale), simd.splat(wide, ZERO), simd.splat(wide, ZERO)
    for i in range(x.shape[0]):
        level = nearest(wide, levels, load(wide, x, i) * inverse)
        a += load(wide, weighted_x, i) * level
        b += load(wide, weights, i) * level * level
    return a, b


@helper
def weigh(wide, x, weights, weighted_x):
    """The last tile becomes the product of the others."""
    for i in range(x.shape[0]):
        store(wide, weighted_x, i, load(wide, weights, i) * load(wide, x, i))


@helper
def _ratio(a, b):
    return simd.select(b > ZERO, a / b, ZERO)


@helper
def _ratio_of_numbers(a, b):
    return a / b if b > ZERO else ZERO


@helper
def _of_block(wide, sums, joined):
    """Where the lanes are parts of one block, their total in each."""
    return simd.splat(wide, simd.sum_of(sums)) if joined else sums


@helper
def search_scale(wide, x, weights, weighted_x, levels, d, search, joined):
    """In which lanes there is a better d, and d; ``joined`` lanes are parts of one block with one d.

    Tiles are of values, weights and weighted values.
    """
    limit = _of_block(wide, error_of(wide, x, weights, levels, d), joined) * LOWER
    ideal, gain = d, simd.splat(wide, ZERO)
    for factor in search.factors:
        a, b = moments(wide, x, weights, weighted_x, levels, d * factor)
        a, b = _of_block(wide, a, joined), _of_block(wide, b, joined)
        trial = _ratio(a, b)
        better = trial * a > gain
        gain = simd.select(better, trial * a, gain)
        ideal = simd.select(better, trial, ideal)
    best, best_d = limit, d
    scale = ideal
    for i in range(search.windows.size):
        if i:
            a, b = moments(wide, x, weights, weighted_x, levels, scale)
            ideal = _ratio(_of_block(wide, a, joined), _of_block(wide, b, joined))
        scale = half(wide, ideal)
        error = _of_block(wide, error_of(wide, x, weights, levels, scale), joined)
        better = (error < best) & (abs(scale) < _INFINITY)
        best = simd.select(better, error, best)
        best_d = simd.select(better, scale, best_d)
    return (best < limit) & (limit < _INFINITY), best_d


@helper
def _ideal_scales(wide, x, weights, weighted_x, levels, scale, factors):
    """Each lane's best scale and its Σ w·level², by which an error of the scale weighs."""
    ideal, gain, curvature = scale, simd.splat(wide, ZERO), simd.splat(wide, ZERO)
    for factor in factors:
        a, b = moments(wide, x, weights, weighted_x, levels, scale * factor)
        trial = _ratio(a, b)
        better = trial * a > gain
        gain = simd.select(better, trial * a, gain)
        ideal = simd.select(better, trial, ideal)
        curvature = simd.select(better, b, curvature)
    return ideal, curvature


@helper
def _nearest_codes(ideal, inverse, span):
    clipped = simd.minimum(simd.maximum(ideal * inverse, np.float32(span[0])), np.float32(span[1]))
    return simd.rint(clipped)


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
        trial = _ratio_of_numbers(product, square)
        if trial * product > best:
            best, best_d = trial * product, trial
    return best_d


@helper
def _best_neighbours(wide, x, weights, levels, span, d, codes, window):
    """Of each lane's codes within the window, the one of least error, and the errors."""
    best, error = codes, error_of(wide, x, weights, levels, d * codes)
    for step in range(1, window + 1):
        for sign in range(1, -2, -2):
            moved = codes + np.float32(sign * step)
            moved = simd.minimum(simd.maximum(moved, np.float32(span[0])), np.float32(span[1]))
            trial = error_of(wide, x, weights, levels, d * moved)
            better = trial < error
            best = simd.select(better, moved, best)
            error = simd.select(better, trial, error)
    return best, error


@helper
def search_scales(wide, x, weights, weighted_x, levels, span, d, codes, search):
    """If there is a better d (a number) with better scale codes (float32, a lane each), and both of them.

    Tiles are of values, weights and weighted values, a lane per sub-block of one super-block.
    """
    limit = simd.sum_of(error_of(wide, x, weights, levels, d * codes)) * LOWER
    ideal, curvature = _ideal_scales(wide, x, weights, weighted_x, levels, d * codes, search.factors)
    common = _common_scale(ideal, curvature, span, search.peaks)
    best, best_d, best_codes = limit, d, codes
    for start in search.starts:
        trial_d = _half_number(wide, common * start)
        trial = _nearest_codes(ideal, _inverse_number(trial_d), span)
        for i in range(search.windows.size):
            if i:
                a, b = moments(wide, x, weights, weighted_x, levels, trial_d * trial)
                slope, bend = simd.sum_of(a * trial), simd.sum_of(b * trial * trial)
                trial_d = _half_number(wide, _ratio_of_numbers(slope, bend))
            window = search.windows[i]
            trial, errors = _best_neighbours(wide, x, weights, levels, span, trial_d, trial, window)
            error = simd.sum_of(errors)
            if error < best and abs(trial_d) < _INFINITY:
                best, best_d, best_codes = error, trial_d, trial
    return best < limit and limit < _INFINITY, best_d, best_codes
