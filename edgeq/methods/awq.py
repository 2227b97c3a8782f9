"""AWQ (Lin et al. 2023, arXiv:2306.00978): columns of large inputs are scaled up before rounding, their inputs down.

s_j = (mean x_j²)^(α/2), of mean 1 in the logarithm; α is the one of eleven from 0 to 1 whose rounding leaves the least
error in what the layers give. The paper's s is by the mean of |x|, and its error by running the layers; the Gram
matrix gives the same without a second pass. Who divides the inputs is the caller's business
(``edgeq.convert.folded_source``).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgeq.methods.base import Floats, Statistics
from edgeq.methods.grids import Grid

_EXPONENTS = np.linspace(0, 1, 11)
_TINY = 1e-8  # of the largest mean square: a column that is never used has no scale of its own


def awq_scales(weights: Sequence[Floats], statistics: Statistics, grids: Sequence[Grid]) -> Floats:
    """Scales float32 ``[columns]`` for matrices ``[rows, columns]`` that read the same, each rounded on its grid."""
    importance = statistics.importance().astype(np.float64)
    importance = np.maximum(importance, max(_TINY * float(importance.max()), 1e-30))
    best, least = np.ones(len(importance), np.float32), np.inf
    for exponent in _EXPONENTS:
        log = np.log(importance) * (exponent / 2)
        scales = np.exp(log - log.mean()).astype(np.float32)
        error = sum(_error(w, scales, statistics, grid) for w, grid in zip(weights, grids, strict=True))
        if error < least:
            best, least = scales, error
    return best


def _error(weights: Floats, scales: Floats, statistics: Statistics, grid: Grid) -> float:
    """Σ e·H·e of the weights that are rounded times the scales."""
    rounded = grid.start(weights * scales, None).values(grid.lattice) / scales
    difference = rounded - weights
    return float(np.vdot(difference @ statistics.damped(), difference))
