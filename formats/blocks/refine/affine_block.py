"""What refining Q4_1 and Q5_1 shares: x = d · code + m, one float16 scale and one minimum of any sign."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from edgeq.formats.blocks.base import Bytes, Floats
from edgeq.formats.blocks.refine.affine_search import (
    Fit,
    Given,
    code_sums,
    least_squares,
    nearest_codes,
    search,
    squared_error,
    totals_of,
)
from edgeq.formats.blocks.refine.affine_super_block import KEEP, half

# The min is −m, and may have any sign.
LOWEST = -np.inf


class Search(NamedTuple):
    """``starts`` and ``steps`` of ``affine_search.search``; how often the float16 scale is fitted again."""

    starts: Floats
    steps: int
    rounds: int


class Refined(NamedTuple):
    d: Floats  # [n], float16's values
    m: Floats  # [n]
    codes: Bytes  # [n, values]
    improved: np.ndarray  # mask [n]


def refine_range(
    values: Floats, importance: Floats, d: Floats, m: Floats, nmax: int, parameters: Search
) -> Refined:
    """Scale and minimum of less error than the ones given, where there are any: values ``[n, 32]``."""
    x, weights = np.ascontiguousarray(values.T), np.ascontiguousarray(importance.T)
    totals = totals_of(x, weights)
    scale, low = d, -m
    codes = nearest_codes(x, scale, low, nmax)
    error = squared_error(x, weights, codes, scale, low) * KEEP
    given = Given(scale, low, code_sums(x, weights, codes))
    fit = search(x, weights, given, totals, nmax, LOWEST, parameters.starts, parameters.steps)
    improved = np.zeros(d.shape, bool)
    for _ in range(parameters.rounds):
        trial_scale = half(fit.scale)
        trial_low = half(fit.low + fit.slope * (trial_scale - fit.scale))
        codes = nearest_codes(x, trial_scale, trial_low, nmax)
        trial_error = squared_error(x, weights, codes, trial_scale, trial_low)
        better = trial_error < error
        improved |= better
        error = np.where(better, trial_error, error)
        scale, low = np.where(better, trial_scale, scale), np.where(better, trial_low, low)
        again, solved = least_squares(code_sums(x, weights, codes), totals, LOWEST)
        fit = Fit(*(np.where(solved, new, old) for new, old in zip(again, fit, strict=True)))
    return Refined(scale, -low, nearest_codes(x, scale, low, nmax).T.astype(np.uint8), improved)
