"""Search of a scale and a min for x ≈ scale · code − min, beyond ggml's: many starts, each alternated.

Given the codes, scale and min are a least squares problem; given scale and min, the best codes are the
nearest ones. Alternating the two goes down to a local optimum, so it is begun at several places. Arrays are
``[values of a block, blocks]`` or ``[blocks]``, and sums run in order (see ``edgeq.formats.blocks.search``),
so that the kernels that do the same in vectors find the same bits.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from edgeq.formats.blocks.base import Floats
from edgeq.formats.blocks.search import ordered_sum

_ZERO = np.float32(0)
_ONE = np.float32(1)
_TWO = np.float32(2)


class Totals(NamedTuple):
    """Σ w and Σ w·x of each block, 1 / Σ w and the mean of x (0 where Σ w is)."""

    w: Floats
    wx: Floats
    inverse: Floats
    mean: Floats


class Sums(NamedTuple):
    """Σ w·l, Σ w·l² and Σ w·l·x of the codes l."""

    l: Floats  # noqa: E741
    l2: Floats
    lx: Floats


class Fit(NamedTuple):
    """The best scale and min for some codes, and how the error grows beside them.

    A scale off by a and the best min for it, off by ``slope`` · a, cost ``curvature`` · a²; a min off by b
    from that costs Σ w · b². ``gain`` is Σ w·x² less the error.
    """

    scale: Floats
    low: Floats
    curvature: Floats
    slope: Floats
    gain: Floats


class Given(NamedTuple):
    """Scale and min to begin from, and the sums of their codes."""

    scale: Floats
    low: Floats
    sums: Sums


def starts_at(*pairs: tuple[float, float]) -> Floats:
    """Starts one by one, ``[k, 2]``: see ``search``."""
    return np.array(pairs, np.float32)


def starts_between(first: float, last: float, step: float) -> Floats:
    """All pairs of the numbers from first to less than last."""
    line = np.arange(first, last, step)
    return np.array([(low, high) for low in line for high in line], np.float32)


def totals_of(x: Floats, weights: Floats) -> Totals:
    w, wx = ordered_sum(weights), ordered_sum(weights * x)
    inverse = np.where(w > 0, _ONE / w, _ZERO)
    return Totals(w, wx, inverse, wx * inverse)


def nearest_codes(x: Floats, scale: Floats, low: Floats, nmax: int) -> Floats:
    """Codes 0..nmax nearest to (x + low) / scale; 0 where the scale is 0."""
    inverse = np.where(scale > 0, _ONE / scale, _ZERO)
    level = (x + low) * inverse
    level = np.where(level > 0, level, _ZERO)
    rounded: Floats = np.rint(np.where(level < nmax, level, np.float32(nmax)))
    return rounded


def code_sums(x: Floats, weights: Floats, codes: Floats) -> Sums:
    weighted = weights * codes
    return Sums(ordered_sum(weighted), ordered_sum(weighted * codes), ordered_sum(weighted * x))


def squared_error(x: Floats, weights: Floats, codes: Floats, scale: Floats, low: Floats) -> Floats:
    difference = (scale * codes - low) - x
    return ordered_sum(weights * (difference * difference))


def least_squares(sums: Sums, totals: Totals, lowest: float) -> tuple[Fit, np.ndarray]:
    """The fit to some codes with a min of ``lowest`` or more, and the mask of blocks where there is one."""
    slope = sums.l * totals.inverse
    curvature = sums.l2 - sums.l * slope
    scale: Floats = np.divide(sums.lx - slope * totals.wx, curvature)
    low = scale * slope - totals.mean
    least: np.float32 = np.float32(lowest)
    clipped = low < least
    alone: Floats = np.divide(sums.lx + least * sums.l, sums.l2)
    scale = np.where(clipped, alone, scale)
    low = np.where(clipped, least, low)
    shrunk = (scale * sums.l2 - _TWO * (low * sums.l + sums.lx)) * scale
    gain: Floats = np.negative(shrunk + (low * totals.w + _TWO * totals.wx) * low)
    return Fit(scale, low, curvature, slope, gain), (curvature > 0) & (scale > 0)


def search(
    x: Floats,
    weights: Floats,
    given: Given,
    totals: Totals,
    nmax: int,
    lowest: float,
    starts: Floats,
    steps: int,
) -> Fit:
    """The best fit found from the codes of ``given`` and from ``starts`` ``[k, 2]``, ``steps`` each.

    A start is how far the smallest and the largest code lie inside the range of the values, in codes.
    Blocks for which no codes give a fit keep the given scale and min.
    """
    fit, solved = least_squares(given.sums, totals, lowest)
    nothing = np.full_like(totals.w, -np.inf)
    best = _better(Fit(given.scale, given.low, fit.curvature, fit.slope, nothing), fit, solved)
    begin = np.minimum(x.min(axis=0), np.float32(-lowest))
    step = (x.max(axis=0) - begin) / np.float32(nmax)
    scale, low = fit.scale, fit.low
    for which in range(len(starts) + 1):
        if which:
            from_low, from_high = starts[which - 1]
            low = -(begin + from_low * step)
            low = np.where(low < np.float32(lowest), np.float32(lowest), low)
            scale = (x.max(axis=0) - from_high * step + low) / np.float32(nmax)
        for _ in range(steps):
            codes = nearest_codes(x, scale, low, nmax)
            fit, solved = least_squares(code_sums(x, weights, codes), totals, lowest)
            best = _better(best, fit, solved)
            scale, low = fit.scale, fit.low
    return best


def _better(best: Fit, fit: Fit, solved: np.ndarray) -> Fit:
    better = solved & (fit.gain > best.gain)
    return Fit(*(np.where(better, new, old) for new, old in zip(fit, best, strict=True)))
