"""AWQ (Lin et al. 2023, arXiv:2306.00978): columns of large inputs are scaled up before rounding, their inputs down.

s_j = (mean x_j²)^(α/2) / (mean w_j²)^(β/2), of mean 1 in the logarithm, β = 0 as in the paper or 1 − α as in AutoAWQ
(``duo_scaling``); α is one of eleven from 0 to 1. The scales are those whose rounding, clipped as it will be
(``clip``), leaves the least error in what all layers that read the same give; α = β = 0 is among them, so it is never
worse. The paper's means are of |x|, and its error comes of running the layers; the Gram matrix gives the same without
a second pass. ``edgeq.convert.folded_source`` puts them into the model; of weights that have them, the method ``awq``
makes what ``clip`` does.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from edgeq.formats.blocks.base import Floats
from edgeq.formats.blocks.lattice import Parts
from edgeq.methods.base import Statistics, method
from edgeq.methods.clip import clip, clipped
from edgeq.methods.grids import Grid
from edgeq.methods.scale_search import own_grams

AWQ = "awq"
_EXPONENTS = np.linspace(0, 1, 11)
_TINY = 1e-8  # of the largest mean square: a column that is never used has no scale of its own
_ROWS = 256  # of each matrix that the scales are tried on

Doubles = NDArray[np.float64]


@method(AWQ)
def awq(weights: Floats, statistics: Statistics, grid: Grid) -> Parts:
    """Parts in rows of weights whose columns were scaled, statistics those of what they read then."""
    return clip(weights, statistics, grid)


def awq_scales(
    weights: Sequence[Floats],
    statistics: Statistics,
    grids: Sequence[Grid],
    shared: NDArray[np.intp] | None = None,
) -> Floats:
    """Scales float32 ``[columns]`` for matrices ``[rows, columns]`` that read the same, each rounded on its grid.

    Columns of the same number in ``shared``, ``[columns]``, get the same scale: one value feeds them all.
    """
    few = [w[:: -(-len(w) // _ROWS)] for w in weights]
    best, least = np.ones(few[0].shape[1], np.float32), np.inf
    for log in _candidates(few, statistics.importance()):
        scales = _centred(log, shared)
        error = sum(_error(w, scales, statistics, grid) for w, grid in zip(few, grids, strict=True))
        if error < least:
            best, least = scales, error
    return best


def _candidates(weights: Sequence[Floats], importance: Floats) -> Iterator[Doubles]:
    """Logarithms of scales; the first ones change nothing."""
    inputs = _logs(importance)
    sizes = _logs(np.concatenate([np.square(w) for w in weights]).mean(axis=0))
    for exponent in _EXPONENTS:
        yield exponent * inputs
    for exponent in _EXPONENTS[:-1]:
        yield exponent * inputs - (1 - exponent) * sizes


def _logs(squares: Floats) -> Doubles:
    """Logarithms of the roots of mean squares."""
    found = squares.astype(np.float64)
    return np.log(np.maximum(found, max(_TINY * float(found.max()), 1e-30))) / 2


def _centred(log: Doubles, shared: NDArray[np.intp] | None) -> Floats:
    if shared is not None:
        log = (np.bincount(shared, log) / np.bincount(shared))[shared]
    return np.asarray(np.exp(log - log.mean()), np.float32)


def _error(weights: Floats, scales: Floats, statistics: Statistics, grid: Grid) -> float:
    """Σ e·H·e of the weights that are rounded times the scales."""
    gram, size = statistics.damped(), grid.lattice.sub_values
    inverse = (np.float32(1) / scales).reshape(-1, size)
    importance = np.asarray(statistics.importance() / np.square(scales), np.float32)
    grams = own_grams(gram, size) * inverse[:, None] * inverse[..., None]
    parts = clipped(weights * scales, importance, grams, grid)
    difference = parts.values(grid.lattice) / scales - weights
    return float(np.vdot(difference @ gram, difference))
