"""Means with their errors, and percentiles: what every number of an evaluation is made of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Values = NDArray[Any]


def standard_error(values: Values) -> float:
    """Standard error of the mean of independent values; 0 of fewer than two.

    As llama-perplexity's (tools/perplexity, ``mean_and_uncertainty``): the deviation over √(n - 1).
    """
    return float(values.std(dtype=np.float64) / np.sqrt(len(values) - 1)) if len(values) > 1 else 0.0


def group_error(values: Values, groups: Values) -> float:
    """Standard error of the mean where the values of one group belong together; 0 of fewer than two groups.

    Neighbouring tokens are alike, so that errors which take them as independent are too small; those of the groups'
    sums are not (the ratio estimator of cluster sampling: Cochran, Sampling Techniques, 1977, section 9A).
    """
    _, number = np.unique(groups, return_inverse=True)
    counts = np.bincount(number)
    if len(counts) < 2:
        return 0.0
    sums = np.bincount(number, values.astype(np.float64))
    residuals = sums - counts * (sums.sum() / counts.sum())
    spread = np.square(residuals).sum() * len(counts) / (len(counts) - 1)
    return float(np.sqrt(spread) / counts.sum())


def mean_with_error(values: Values, name: str) -> dict[str, float]:
    """``NAME_mean`` and ``NAME_standard_error``, the values taken as independent."""
    mean = float(values.mean(dtype=np.float64))
    return {f"{name}_mean": mean, f"{name}_standard_error": standard_error(values)}


def percentiles(values: Values, name: str, wanted: Sequence[float]) -> dict[str, float]:
    """``NAME_P`` for every percentage P, linear between the two nearest values, as in llama-perplexity."""
    found = np.quantile(values.astype(np.float64), [p / 100 for p in wanted])
    return {f"{name}_{p:g}": float(value) for p, value in zip(wanted, found, strict=True)}


def share_error(share: float, count: int) -> float:
    """Standard error of a share of ``count`` cases; 0 of fewer than two."""
    return float(np.sqrt(share * (1 - share) / (count - 1))) if count > 1 else 0.0


def share_interval(hits: int, count: int, z: float = 1.96) -> tuple[float, float]:
    """The 95 % interval of a share by Wilson's score (J. Am. Stat. Assoc. 22, 1927): fit for few cases."""
    if not count:
        return 0.0, 1.0
    share, square = hits / count, z * z / count
    centre = (share + square / 2) / (1 + square)
    half = z / (1 + square) * float(np.sqrt(share * (1 - share) / count + square / (4 * count)))
    return max(0.0, centre - half), min(1.0, centre + half)
