"""What IQ4_NL and IQ4_XS share: 4-bit codes of sixteen levels that lie closer together near zero.

Source: ``kvalues_iq4nl`` in ``ggml/src/ggml-common.h``; ``quantize_row_iq4_nl_impl`` in ``ggml-quants.c``,
with its ``ntry`` 7.
"""

from __future__ import annotations

import numpy as np

from edgeq.formats.blocks.base import Bytes, Floats
from edgeq.formats.blocks.search import ordered_sum, signed_peak

LEVELS = np.array([-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113], np.float32)
_MIDDLES = (LEVELS[1:] + LEVELS[:-1]) / 2  # exact
_ZERO_BLOCK = np.float32(1e-15)  # GROUP_MAX_EPS
_TRIES = 7


def nearest_level(x: Floats) -> Bytes:
    """The code of the nearest level, the upper one of two equally near; NaN gets 15, as in ggml."""
    return np.searchsorted(_MIDDLES, x, side="right").astype(np.uint8)


def error_weights(values: Floats, importance: Floats | None) -> Floats:
    """x², or importance · √(2 · mean square of the block + x²), of float32 ``[n, block_values]``."""
    squares = values * values
    if importance is None:
        return squares
    sigma2 = ordered_sum(squares.T) * np.float32(2 / values.shape[1])
    return np.asarray(importance * np.sqrt(sigma2[:, None] + squares))


def search_level_scale(x: Floats, weights: Floats) -> Floats:
    """Find the scale of x ≈ scale · level(code) with least weighted squared error, of each column of x.

    Tries 16 inverse scales around −127 / peak. A column of zeros gets scale 0.
    """
    peak = signed_peak(x)
    scale, sum_lx, _ = _trial(x, weights, 1 / (-peak / LEVELS[0]))
    best = scale * sum_lx
    for i in range(-_TRIES, _TRIES + 1):
        trial, sum_lx, sum_l2 = _trial(x, weights, (np.float32(i) + LEVELS[0]) / peak)
        better = (sum_l2 > 0) & (sum_lx * sum_lx > best * sum_l2)
        scale = np.where(better, trial, scale)
        best = np.where(better, trial * sum_lx, best)
    return np.where(np.abs(peak) < _ZERO_BLOCK, np.float32(0), scale)


def _trial(x: Floats, weights: Floats, inverse: Floats) -> tuple[Floats, Floats, Floats]:
    """The best scale for the codes of an inverse scale, Σ w·level·x and Σ w·level²."""
    levels = LEVELS[nearest_level(inverse * x)]
    weighted = weights * levels
    sum_lx, sum_l2 = ordered_sum(weighted * x), ordered_sum(weighted * levels)
    return np.where(sum_l2 > 0, sum_lx / sum_l2, np.float32(0)), sum_lx, sum_l2
