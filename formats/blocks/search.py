"""Scale searches shared by the plain encoders: ggml's, value for value, for many blocks at once.

Every array is ``[values of a block, blocks]``: a step over the first axis does one C iteration for all
blocks, so float32 sums run in the order of the C loops, which is what makes the bytes equal to ggml's.
(NumPy's own ``sum`` adds pairwise.) Sources: ``ggml/src/ggml-quants.c``, the symbols named below.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgeq.formats.blocks.base import Bytes, Floats

Ints = NDArray[np.int32]

_ROUND = np.float32(12582912.0)  # 1.5 · 2^23: adding it leaves the rounded integer in the low mantissa bits
_ONE = np.float32(1)
_ZERO_BLOCK = np.float32(1e-15)  # GROUP_MAX_EPS
_TENTH = np.float32(0.1)


def nearest_int(values: Floats) -> Ints:
    """Round to nearest, ties to even, as ``nearest_int`` does, also for what does not fit 23 bits."""
    return ((values + _ROUND).view(np.int32) & 0x7FFFFF) - 0x400000


def ordered_sum(terms: Floats) -> Floats:
    """Sum over the first axis in order, in float32."""
    total = np.zeros(terms.shape[1:], np.float32)
    for term in terms:
        total += term
    return total


def first_min(x: Floats) -> Floats:
    """Smallest value of each column; of equal ones (−0 and 0) the first."""
    return _pick(x, x.argmin(axis=0))


def first_max(x: Floats) -> Floats:
    """Largest value of each column; of equal ones (−0 and 0) the first."""
    return _pick(x, x.argmax(axis=0))


def signed_peak(x: Floats) -> Floats:
    """The value of largest magnitude of each column, with its sign; of equal ones the first; never −0."""
    return _pick(x, np.abs(x).argmax(axis=0)) + np.float32(0)


def _pick(x: Floats, index: NDArray[np.intp]) -> Floats:
    """Of each column the value at its index."""
    picked: Floats = np.take_along_axis(x, index[None], axis=0)[0]
    return picked


def row_rms_weights(values: Floats, importance: Floats) -> Floats:
    """Importance · √(mean square of the row + x²): the weights of Q4_0, Q4_1, Q5_0 and Q5_1.

    ``values`` is ``[rows, columns]`` here. Source: ``quantize_row_q4_0_impl`` and its three sisters.
    """
    squares = values * values
    mean = np.add.accumulate(squares, axis=1)[:, -1] / np.float32(values.shape[1])  # accumulate: in order
    return np.asarray(importance * np.sqrt(mean[:, None] + squares), np.float32)


def search_scale_and_min(
    x: Floats, weights: Floats, nmax: int, first: float, step: float, steps: int, absolute: bool = False
) -> tuple[Floats, Floats, Bytes]:
    """Find scale and min ≥ 0 of x ≈ scale · code − min with codes 0..nmax and least weighted squared error.

    ``absolute`` compares the trials by absolute instead of squared errors (``use_mad``). Tries ``steps + 1``
    inverse scales (nmax + first + step · i) / (max − min), and solves least squares for each one's codes.
    Returns scale ``[n]``, min ``[n]`` and codes uint8 (x's shape). Sources:
    ``make_qkx2_quants`` and ``make_qkx3_quants``, which do the same when weights are given.
    """
    levels = np.float32(nmax)
    low, high = first_min(x), first_max(x)
    low = np.where(low > 0, np.float32(0), low)
    flat_low = low
    flat = high == low
    sum_w, sum_x = ordered_sum(weights), ordered_sum(weights * x)
    inverse = levels / (high - low)
    scale = _ONE / inverse
    codes = _codes(inverse, x - low, 0, nmax)
    size = np.abs if absolute else np.square
    error = ordered_sum(weights * size(scale * codes + low - x))
    for i in range(steps + 1):
        inverse = (np.float32(first) + np.float32(step) * np.float32(i) + levels) / (high - low)
        trial = _codes(inverse, x - low, 0, nmax)  # low moves with the best so far: ggml's quirk
        trial_scale, trial_low, solvable = _least_squares(x, weights, trial, sum_w, sum_x)
        trial_error = ordered_sum(weights * size(trial_scale * trial + trial_low - x))
        better = solvable & (trial_error < error)
        np.copyto(codes, trial, where=better)
        error = np.where(better, trial_error, error)
        scale = np.where(better, trial_scale, scale)
        low = np.where(better, trial_low, low)
    codes[:, flat] = 0
    return np.where(flat, np.float32(0), scale), -np.where(flat, flat_low, low), codes.astype(np.uint8)


def _codes(inverse: Floats, x: Floats, lowest: int, highest: int) -> Floats:
    return np.clip(nearest_int(inverse * x), lowest, highest).astype(np.float32)


def _least_squares(
    x: Floats, weights: Floats, codes: Floats, sum_w: Floats, sum_x: Floats
) -> tuple[Floats, Floats, NDArray[np.bool_]]:
    """Scale and minimum (≤ 0) that fit the codes best, and where the system had a solution."""
    weighted = weights * codes
    sum_l, sum_l2, sum_xl = ordered_sum(weighted), ordered_sum(weighted * codes), ordered_sum(weighted * x)
    determinant = sum_w * sum_l2 - sum_l * sum_l
    scale: Floats = np.divide(sum_w * sum_xl - sum_x * sum_l, determinant)
    low: Floats = np.divide(sum_l2 * sum_x - sum_l * sum_xl, determinant)
    clipped = low > 0
    scale = np.where(clipped, np.divide(sum_xl, sum_l2), scale)
    return scale, np.where(clipped, np.float32(0), low), determinant > 0


def search_symmetric_scale(x: Floats, nmax: int, weights: Floats | None = None) -> tuple[Floats, Bytes]:
    """Find the scale of x ≈ scale · (code − nmax) with codes 0..2·nmax − 1 and least weighted squared error.

    Tries 19 inverse scales around −nmax / peak; without weights a value's weight is its square. Returns
    scale ``[n]`` and codes uint8 (x's shape); a block of zeros gets scale 0 and codes 0. Source:
    ``make_qx_quants`` with ``rmse_type`` 1.
    """
    peak = signed_peak(x)
    weights = x * x if weights is None else weights
    weighted_x = weights * x
    codes, sum_lx, sum_l2 = _symmetric_trial(x, weights, weighted_x, np.float32(-nmax) / peak, nmax)
    scale = np.where(sum_l2 != 0, sum_lx / sum_l2, np.float32(0))
    best = scale * sum_lx
    for i in (*range(-9, 0), *range(1, 10)):
        inverse = -(np.float32(nmax) + _TENTH * np.float32(i)) / peak
        trial, sum_lx, sum_l2 = _symmetric_trial(x, weights, weighted_x, inverse, nmax)
        better = (sum_l2 > 0) & (sum_lx * sum_lx > best * sum_l2)
        np.copyto(codes, trial, where=better)
        scale = np.where(better, sum_lx / sum_l2, scale)
        best = np.where(better, scale * sum_lx, best)
    zero = np.abs(peak) < _ZERO_BLOCK
    codes = codes + np.float32(nmax)
    codes[:, zero] = 0
    return np.where(zero, np.float32(0), scale), codes.astype(np.uint8)


def search_by_moves(x: Floats, nmax: int) -> tuple[Floats, Bytes]:
    """Find the scale of x ≈ scale · (code − nmax) with codes 0..2·nmax − 1; a value's weight is its square.

    Starts from −nmax / peak, then moves one code at a time, five rounds. Returns scale ``[n]`` and codes
    uint8 (x's shape); a block of zeros gets scale 0 and codes 0. Source: ``make_q3_quants``.
    """
    peak = signed_peak(x)
    weights = x * x
    weighted_x = weights * x
    codes, sum_lx, sum_l2 = _symmetric_trial(x, weights, weighted_x, np.float32(-nmax) / peak, nmax)
    for _ in range(5):
        before = codes.copy()
        for i in range(len(x)):
            other_lx = sum_lx - weighted_x[i] * codes[i]
            other_l2 = sum_l2 - weights[i] * codes[i] * codes[i]
            optimum: Floats = np.divide(x[i] * other_l2, other_lx)
            new = np.clip(nearest_int(optimum), -nmax, nmax - 1).astype(np.float32)
            new_lx, new_l2 = other_lx + weighted_x[i] * new, other_l2 + weights[i] * new * new
            better = (other_lx > 0) & (new != codes[i]) & (new_l2 > 0)
            better &= new_lx * new_lx * sum_l2 > sum_lx * sum_lx * new_l2
            np.copyto(codes[i], new, where=better)
            sum_lx, sum_l2 = np.where(better, new_lx, sum_lx), np.where(better, new_l2, sum_l2)
        if (codes == before).all():
            break
    zero = np.abs(peak) < _ZERO_BLOCK
    codes += np.float32(nmax)
    codes[:, zero] = 0
    scale = np.where(sum_l2 > 0, sum_lx / sum_l2, np.float32(0))
    return np.where(zero, np.float32(0), scale), codes.astype(np.uint8)


def _symmetric_trial(
    x: Floats, weights: Floats, weighted_x: Floats, inverse: Floats, nmax: int
) -> tuple[Floats, Floats, Floats]:
    codes = _codes(inverse, x, -nmax, nmax - 1)
    return codes, ordered_sum(weighted_x * codes), ordered_sum(weights * codes * codes)


def search_positive_scale(x: Floats, nmax: int, weights: Floats) -> tuple[Floats, Bytes]:
    """Find the scale of non-negative x ≈ scale · code with codes 0..nmax and least weighted squared error.

    Tries 9 inverse scales, then moves one code at a time, five rounds. Returns scale ``[n]`` and codes
    uint8 (x's shape). It serves the sub-block scales and mins of Q4_K and Q5_K under importance.
    Source: ``make_qp_quants``; a negative x wraps to a large code there, and so here.
    """
    high = np.maximum(x.max(axis=0), np.float32(0))
    inverse = _best_positive_inverse(x, high, nmax, weights)
    rounded = np.minimum(nearest_int(inverse * x), nmax)
    codes = rounded & 0xFF
    levels = rounded.astype(np.float32)
    sum_lx, sum_l2 = ordered_sum(weights * x * levels), ordered_sum(weights * levels * levels)
    for _ in range(5):
        for i in range(len(x)):
            sum_lx, sum_l2 = _move_code(x[i], weights[i], codes[i], nmax, sum_lx, sum_l2)
    zero = high < _ZERO_BLOCK
    codes[:, zero] = 0
    scale = np.where(sum_l2 > 0, sum_lx / sum_l2, np.float32(0))
    return np.where(zero, np.float32(0), scale), codes.astype(np.uint8)


def _best_positive_inverse(x: Floats, high: Floats, nmax: int, weights: Floats) -> Floats:
    inverse = np.float32(nmax) / high
    codes = (nearest_int(inverse * x) & 0xFF).astype(np.float32)
    error = ordered_sum(_weighted_square(weights, x - (_ONE / inverse) * codes))
    for i in (*range(-4, 0), *range(1, 5)):
        trial = (_TENTH * np.float32(i) + np.float32(nmax)) / high
        codes = np.minimum(nearest_int(trial * x), nmax).astype(np.float32)
        trial_error = ordered_sum(_weighted_square(weights, x - (_ONE / trial) * codes))
        better = trial_error < error
        error = np.where(better, trial_error, error)
        inverse = np.where(better, trial, inverse)
    return inverse


def _weighted_square(weights: Floats, difference: Floats) -> Floats:
    return weights * difference * difference  # not weights · (difference²): that rounds otherwise


def _move_code(
    x: Floats, weight: Floats, code: Ints, nmax: int, sum_lx: Floats, sum_l2: Floats
) -> tuple[Floats, Floats]:
    """Move one code (in place) to its optimum, given the others, where that helps; the new sums."""
    old = code.astype(np.float32)
    other_lx = sum_lx - weight * x * old
    other_l2 = sum_l2 - weight * old * old
    optimum: Floats = np.divide(x * other_l2, other_lx)
    new_code = np.minimum(nearest_int(optimum), nmax)
    new = new_code.astype(np.float32)
    new_lx = other_lx + weight * x * new
    new_l2 = other_l2 + weight * new * new
    better = (other_lx > 0) & (other_l2 > 0) & (new_code != code)
    better &= new_lx * new_lx * sum_l2 > sum_lx * sum_lx * new_l2
    np.copyto(code, new_code & 0xFF, where=better)
    return np.where(better, new_lx, sum_lx), np.where(better, new_l2, sum_l2)
