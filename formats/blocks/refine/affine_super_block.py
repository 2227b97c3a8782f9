"""Joint choice of a super-block's scales: integer scales and mins of the sub-blocks, and their two scales.

Arrays are ``[sub-blocks, super-blocks]`` or ``[super-blocks]``; values are ``[values, sub-blocks,
super-blocks]``. The error beside a sub-block's best scale and min is taken for a quadratic (``Fit``), which
makes trying integers and scales cheap; what wins there is rounded in earnest.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from edgeq.formats.blocks.base import Bytes, Floats
from edgeq.formats.blocks.refine.affine_search import (
    Fit,
    Given,
    Sums,
    Totals,
    code_sums,
    least_squares,
    nearest_codes,
    search,
    squared_error,
    totals_of,
)
from edgeq.formats.blocks.search import ordered_sum

_ZERO = np.float32(0)
_ONE = np.float32(1)
# A change is taken when it is more than float32's noise in the sums of errors.
KEEP = np.float32(1 - 1e-5)


class Search(NamedTuple):
    """``starts`` and ``steps`` of ``affine_search.search``; divisors of the largest scale and min to try.

    ``rounds`` times the integers are chosen by the quadratic, then ``sweeps`` times among all that are within
    ``reach`` of those, by their true error.
    """

    starts: Floats
    steps: int
    divisors: Floats
    rounds: int
    sweeps: int
    reach: int


def around(top: int, below: float, above: float, step: float) -> Floats:
    """Divisors from top + below to less than top + above."""
    return np.arange(top + below, top + above, step).astype(np.float32)


class Scales(NamedTuple):
    """As stored: d and dmin ``[n]`` (float16's values), scales and mins ``[J, n]`` (integers' values)."""

    d: Floats
    dmin: Floats
    scales: Floats
    mins: Floats


def refine_scales(
    x: Floats, weights: Floats, ggmls: Scales, nmax: int, top: int, parameters: Search
) -> tuple[Scales, np.ndarray]:
    """Scales of less error than ggml's, and where there are any (mask ``[n]``); top is the highest integer."""
    totals = totals_of(x, weights)
    sums, old_error = _rounded(x, weights, ggmls, nmax)
    given = Given(*sub_block_scales(ggmls), sums)
    fit = search(x, weights, given, totals, nmax, 0, parameters.starts, parameters.steps)
    d = _best_divisor(fit.scale, fit.curvature, parameters.divisors, top)
    best, error = ggmls, old_error * KEEP
    scales = _nearest_whole(fit.scale, d, top)
    low = fit.low + fit.slope * (scales * d - fit.scale)
    dmin = _best_divisor(low, totals.w, parameters.divisors, top)
    improved = np.zeros(d.shape, bool)
    trial = ggmls
    for i in range(parameters.rounds + parameters.sweeps):
        if i < parameters.rounds:
            trial = Scales(d, dmin, *_whole_pairs(fit, totals, d, dmin, top))
        else:
            nearby = Scales(d, dmin, trial.scales, trial.mins)
            trial = _best_nearby(x, weights, nearby, nmax, top, parameters.reach)
        sums, trial_error = _rounded(x, weights, trial, nmax)
        better = trial_error < error
        improved |= better
        error = np.where(better, trial_error, error)
        best = Scales(*(np.where(better, new, old) for new, old in zip(trial, best, strict=True)))
        new_fit, solved = least_squares(sums, totals, 0)
        fit = Fit(*(np.where(solved, new, old) for new, old in zip(new_fit, fit, strict=True)))
        d, dmin = _fit_scales(trial, sums, totals)
    return best, improved


def sub_block_scales(scales: Scales) -> tuple[Floats, Floats]:
    return scales.d * scales.scales, scales.dmin * scales.mins


def half(values: Floats) -> Floats:
    return values.astype(np.float16).astype(np.float32)


def _inverse(values: Floats) -> Floats:
    return np.where(values > 0, _ONE / values, _ZERO)


def _clamped(values: Floats, top: int) -> Floats:
    values = np.where(values > 0, values, _ZERO)
    return np.where(values < top, values, np.float32(top))


def _nearest_whole(values: Floats, unit: Floats, top: int) -> Floats:
    rounded: Floats = np.rint(_clamped(values * _inverse(unit), top))
    return rounded


def _rounded(x: Floats, weights: Floats, scales: Scales, nmax: int) -> tuple[Sums, Floats]:
    """Sums of the nearest codes, and the error of each super-block."""
    scale, low = sub_block_scales(scales)
    codes = nearest_codes(x, scale, low, nmax)
    return code_sums(x, weights, codes), ordered_sum(squared_error(x, weights, codes, scale, low))


def _best_divisor(values: Floats, weights: Floats, divisors: Floats, top: int) -> Floats:
    """Of the units largest / divisor in float16, the one whose multiples are nearest to the values."""
    largest = values.max(axis=0)
    largest = np.where(largest > 0, largest, _ZERO)
    best = half(np.divide(largest, np.float32(top)))
    least = np.full(best.shape, np.inf, np.float32)
    for divisor in divisors:
        unit = half(np.divide(largest, divisor))
        difference = _nearest_whole(values, unit, top) * unit - values
        cost = ordered_sum(weights * (difference * difference))
        better = cost < least
        least = np.where(better, cost, least)
        best = np.where(better, unit, best)
    return best


def _whole_pairs(fit: Fit, totals: Totals, d: Floats, dmin: Floats, top: int) -> tuple[Floats, Floats]:
    """Scale and min of each sub-block in units of d and dmin: the scale below or above, the min for it."""
    below = np.floor(_clamped(fit.scale * _inverse(d), top))
    least = np.full(fit.scale.shape, np.inf, np.float32)
    scales, mins = np.zeros_like(below), np.zeros_like(below)
    for scale in (below, np.where(below + _ONE < top, below + _ONE, np.float32(top))):
        off = scale * d - fit.scale
        low = fit.low + fit.slope * off
        whole = _nearest_whole(low, dmin, top)
        low_off = whole * dmin - low
        cost = fit.curvature * (off * off) + totals.w * (low_off * low_off)
        better = cost < least
        least = np.where(better, cost, least)
        scales, mins = np.where(better, scale, scales), np.where(better, whole, mins)
    return scales, mins


def _best_nearby(x: Floats, weights: Floats, scales: Scales, nmax: int, top: int, reach: int) -> Scales:
    """The integers of least true error within ``reach`` of those given, in each sub-block."""
    least = np.full(scales.scales.shape, np.inf, np.float32)
    best_scales, best_mins = scales.scales, scales.mins
    for scale_step in range(-reach, reach + 1):
        for min_step in range(-reach, reach + 1):
            moved_scales = _clamped(scales.scales + np.float32(scale_step), top)
            moved_mins = _clamped(scales.mins + np.float32(min_step), top)
            scale, low = scales.d * moved_scales, scales.dmin * moved_mins
            error = squared_error(x, weights, nearest_codes(x, scale, low, nmax), scale, low)
            better = error < least
            least = np.where(better, error, least)
            best_scales = np.where(better, moved_scales, best_scales)
            best_mins = np.where(better, moved_mins, best_mins)
    return Scales(scales.d, scales.dmin, best_scales, best_mins)


def _fit_scales(scales: Scales, sums: Sums, totals: Totals) -> tuple[Floats, Floats]:
    """Least squares for d and dmin with all integers and codes as they are."""
    a = ordered_sum(scales.scales * scales.scales * sums.l2)
    b = ordered_sum(scales.scales * scales.mins * sums.l)
    c = ordered_sum(scales.mins * scales.mins * totals.w)
    p = ordered_sum(scales.scales * sums.lx)
    q = ordered_sum(scales.mins * totals.wx)
    determinant = a * c - b * b
    d: Floats = np.divide(p * c - q * b, determinant)
    dmin: Floats = np.divide(p * b - a * q, determinant)
    alone = ~((determinant > 0) & (dmin > 0))
    d, dmin = np.where(alone, np.divide(p, a), d), np.where(alone, _ZERO, dmin)
    return half(np.where(d > 0, d, _ZERO)), half(dmin)


def by_sub_blocks(values: Floats, sub_blocks: int) -> Floats:
    """``[n, 256]`` as ``[values, sub-blocks, n]``."""
    return np.ascontiguousarray(values.reshape(len(values), sub_blocks, -1).transpose(2, 1, 0))


def codes_of(x: Floats, scales: Scales, nmax: int) -> Bytes:
    """Nearest codes ``[n, sub-blocks, values]``."""
    codes = nearest_codes(x, *sub_block_scales(scales), nmax)
    return np.ascontiguousarray(codes.transpose(2, 1, 0)).astype(np.uint8)
