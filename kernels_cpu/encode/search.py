"""Scale searches of the encoders: twins of ``edgeq.formats.blocks.search``, for one block at a time.

Plain loops in ggml's order, without fastmath: the bytes must be the plain codec's, which are ggml's. Loops
that only round are apart from the loops that sum, so that the former vectorise.
"""

from __future__ import annotations

import numpy as np

from edgeq.kernels_cpu.jit import kernel
from edgeq.kernels_cpu.scalar import ZERO, nearest_int

_LOWEST = np.int32(0)
_ONE = np.float32(1)
_TENTH = np.float32(0.1)
_ZERO_BLOCK = np.float32(1e-15)  # GROUP_MAX_EPS


@kernel
def signed_peak(x):
    """The value of largest magnitude, with its sign; of equal ones the first; never −0."""
    peak, magnitude = ZERO, ZERO
    for value in x:
        if abs(value) > magnitude:
            peak, magnitude = value, abs(value)
    return peak


@kernel
def row_mean_square(row):
    """Mean square in the order of the row (``sigma2`` of ``quantize_row_q4_0_impl``)."""
    total = ZERO
    for value in row:
        total += value * value
    return total / np.float32(row.size)


@kernel
def importance_weights(x, importance, mean_square, weights):
    """weights = importance · √(mean square + x²)."""
    for i in range(x.size):
        weights[i] = importance[i] * np.sqrt(mean_square + x[i] * x[i])


@kernel
def _round_codes(x, inverse, low, nmax, codes):
    highest = np.int32(nmax)
    for i in range(x.size):
        codes[i] = np.float32(min(max(nearest_int(inverse * (x[i] - low)), _LOWEST), highest))


@kernel
def _weighted_error(x, weights, codes, scale, low, absolute):
    error = ZERO
    for i in range(x.size):
        difference = scale * codes[i] + low - x[i]
        error += weights[i] * (abs(difference) if absolute else difference * difference)
    return error


@kernel
def _least_squares(x, weights, codes, sum_w, sum_x):
    """Scale, minimum (≤ 0) and determinant of the system that fits the codes best."""
    sum_l, sum_l2, sum_xl = ZERO, ZERO, ZERO
    for i in range(x.size):
        weighted = weights[i] * codes[i]
        sum_l += weighted
        sum_l2 += weighted * codes[i]
        sum_xl += weighted * x[i]
    determinant = sum_w * sum_l2 - sum_l * sum_l
    scale = (sum_w * sum_xl - sum_x * sum_l) / determinant
    low = (sum_l2 * sum_x - sum_l * sum_xl) / determinant
    if low > ZERO:
        return sum_xl / sum_l2, ZERO, determinant
    return scale, low, determinant


@kernel
def search_scale_and_min(x, weights, nmax, first, step, steps, codes, trial, absolute=False):
    """Scale and min ≥ 0 of x ≈ scale · code − min; float32 codes are left in ``codes``.

    ``absolute`` compares absolute instead of squared errors (Q2_K); ``trial`` is scratch of the same size.
    Twin of ``search_scale_and_min`` in formats (``make_qkx2_quants``).
    """
    low, high, sum_w, sum_x = x[0], x[0], ZERO, ZERO
    for i in range(x.size):
        low = x[i] if x[i] < low else low
        high = x[i] if x[i] > high else high
        sum_w += weights[i]
        sum_x += weights[i] * x[i]
    if low > ZERO:
        low = ZERO
    if high == low:
        codes[:] = ZERO
        return ZERO, -low
    levels = np.float32(nmax)
    inverse = levels / (high - low)
    scale = _ONE / inverse
    _round_codes(x, inverse, low, nmax, codes)
    error = _weighted_error(x, weights, codes, scale, low, absolute)
    for i in range(steps + 1):
        inverse = (first + step * np.float32(i) + levels) / (high - low)  # low moves: ggml's quirk
        _round_codes(x, inverse, low, nmax, trial)
        trial_scale, trial_low, determinant = _least_squares(x, weights, trial, sum_w, sum_x)
        if determinant > ZERO:
            trial_error = _weighted_error(x, weights, trial, trial_scale, trial_low, absolute)
            if trial_error < error:
                codes[:] = trial
                error, scale, low = trial_error, trial_scale, trial_low
    return scale, -low


@kernel
def _symmetric_trial(x, weights, inverse, nmax, codes):
    """Round to codes −nmax..nmax − 1 and return Σ w·x·l and Σ w·l²."""
    lowest, highest = np.int32(-nmax), np.int32(nmax - 1)
    for i in range(x.size):
        codes[i] = np.float32(min(max(nearest_int(inverse * x[i]), lowest), highest))
    sum_lx, sum_l2 = ZERO, ZERO
    for i in range(x.size):
        sum_lx += weights[i] * x[i] * codes[i]
        sum_l2 += weights[i] * codes[i] * codes[i]
    return sum_lx, sum_l2


@kernel
def search_symmetric_scale(x, weights, nmax, codes, trial):
    """Scale of x ≈ scale · code; float32 codes −nmax..nmax − 1 are left in ``codes``.

    A block of zeros gets scale 0 and codes −nmax, which is what ggml stores (it adds nmax to the others).
    Twin of ``search_symmetric_scale`` in formats (``make_qx_quants``); weights are given always.
    """
    peak = signed_peak(x)
    levels = np.float32(nmax)
    if abs(peak) < _ZERO_BLOCK:
        codes[:] = -levels
        return ZERO
    sum_lx, sum_l2 = _symmetric_trial(x, weights, -levels / peak, nmax, codes)
    scale = sum_lx / sum_l2 if sum_l2 != ZERO else ZERO
    best = scale * sum_lx
    for i in range(-9, 10):
        if i == 0:
            continue
        inverse = -(levels + _TENTH * np.float32(i)) / peak
        sum_lx, sum_l2 = _symmetric_trial(x, weights, inverse, nmax, trial)
        if sum_l2 > ZERO and sum_lx * sum_lx > best * sum_l2:
            codes[:] = trial
            scale = sum_lx / sum_l2
            best = scale * sum_lx
    return scale


@kernel
def search_by_moves(x, nmax, codes):
    """Scale of x ≈ scale · code, x²-weighted; float32 codes −nmax..nmax − 1 are left in ``codes``.

    A block of zeros gets scale 0 and codes −nmax. Twin of ``search_by_moves`` in formats
    (``make_q3_quants``).
    """
    peak = signed_peak(x)
    levels = np.float32(nmax)
    if abs(peak) < _ZERO_BLOCK:
        codes[:] = -levels
        return ZERO
    lowest, highest = np.int32(-nmax), np.int32(nmax - 1)
    inverse = -levels / peak
    for i in range(x.size):
        codes[i] = np.float32(min(max(nearest_int(inverse * x[i]), lowest), highest))
    sum_lx, sum_l2 = ZERO, ZERO
    for i in range(x.size):
        weight = x[i] * x[i]
        sum_lx += weight * x[i] * codes[i]
        sum_l2 += weight * codes[i] * codes[i]
    for _ in range(5):
        moved = False
        for i in range(x.size):
            weight = x[i] * x[i]
            other_lx = sum_lx - weight * x[i] * codes[i]
            if not other_lx > ZERO:
                continue
            other_l2 = sum_l2 - weight * codes[i] * codes[i]
            code = np.float32(min(max(nearest_int(x[i] * other_l2 / other_lx), lowest), highest))
            new_lx, new_l2 = other_lx + weight * x[i] * code, other_l2 + weight * code * code
            if code != codes[i] and new_l2 > ZERO and new_lx * new_lx * sum_l2 > sum_lx * sum_lx * new_l2:
                codes[i], sum_lx, sum_l2 = code, new_lx, new_l2
                moved = True
        if not moved:
            break
    return sum_lx / sum_l2 if sum_l2 > ZERO else ZERO


@kernel
def search_positive_scale(x, weights, nmax, codes):
    """Scale of non-negative x ≈ scale · code; codes (int64, wrapped to 8 bits as in ggml) in ``codes``.

    Twin of ``search_positive_scale`` in formats (``make_qp_quants``).
    """
    high = ZERO
    for value in x:
        high = value if value > high else high
    if high < _ZERO_BLOCK:
        codes[:] = 0
        return ZERO
    inverse = _best_positive_inverse(x, weights, nmax, high)
    sum_lx, sum_l2 = ZERO, ZERO
    for i in range(x.size):
        rounded = min(nearest_int(inverse * x[i]), nmax)
        codes[i] = rounded & 0xFF
        sum_lx += weights[i] * x[i] * np.float32(rounded)
        sum_l2 += weights[i] * np.float32(rounded) * np.float32(rounded)
    for _ in range(5):
        for i in range(x.size):
            sum_lx, sum_l2 = _move_code(x, weights, i, nmax, codes, sum_lx, sum_l2)
    return sum_lx / sum_l2 if sum_l2 > ZERO else ZERO


@kernel
def _best_positive_inverse(x, weights, nmax, high):
    levels = np.float32(nmax)
    inverse = levels / high
    scale = _ONE / inverse
    error = ZERO
    for i in range(x.size):
        difference = x[i] - scale * np.float32(nearest_int(inverse * x[i]) & 0xFF)
        error += weights[i] * difference * difference
    for step in range(-4, 5):
        if step == 0:
            continue
        trial = (_TENTH * np.float32(step) + levels) / high
        scale = _ONE / trial
        trial_error = ZERO
        for i in range(x.size):
            difference = x[i] - scale * np.float32(min(nearest_int(trial * x[i]), nmax))
            trial_error += weights[i] * difference * difference
        if trial_error < error:
            error, inverse = trial_error, trial
    return inverse


@kernel
def _move_code(x, weights, i, nmax, codes, sum_lx, sum_l2):
    """Move code i to its optimum, given the others, where that helps; the new sums."""
    weight, old = weights[i], np.float32(codes[i])
    other_lx = sum_lx - weight * x[i] * old
    other_l2 = sum_l2 - weight * old * old
    if not (other_lx > ZERO and other_l2 > ZERO):
        return sum_lx, sum_l2
    code = min(nearest_int(x[i] * other_l2 / other_lx), nmax)
    new_lx = other_lx + weight * x[i] * np.float32(code)
    new_l2 = other_l2 + weight * np.float32(code) * np.float32(code)
    if code != codes[i] and new_lx * new_lx * sum_l2 > sum_lx * sum_lx * new_l2:
        codes[i] = code & 0xFF
        return new_lx, new_l2
    return sum_lx, sum_l2
