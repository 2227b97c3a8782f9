"""Scale searches with one block per lane: twins of ``edgeq.formats.blocks.search``, same bytes.

No contraction and ggml's order of every sum. What is cheaper than in ggml: codes are rounded and clipped as
floats (one check per step finds the lanes where ggml's integers would wrap), and the best codes are not
kept but rounded again from the inverse scale and minimum that gave them. Conditions are folded into what is
compared: LLVM packs and unpacks masks of several registers to combine them.
"""

from __future__ import annotations

import numpy as np

from edgeq.kernels_cpu import simd
from edgeq.kernels_cpu.encode.tiles import load, store
from edgeq.kernels_cpu.jit import helper
from edgeq.kernels_cpu.scalar import ZERO

_ROUND = np.float32(12582912.0)  # 1.5 · 2^23
_ROUND_BITS = np.int32(0x4B400000)  # those of _ROUND; an integer more is a rounded value more
_WRAPS = np.float32(2.0**22)
_ONE = np.float32(1)
_TENTH = np.float32(0.1)
_INFINITY = np.float32(np.inf)
_ZERO_BLOCK = np.float32(1e-15)  # GROUP_MAX_EPS


@helper
def _round(wide, x, inverse, low, nmax, codes):
    """Codes 0..nmax of x, where none wraps; a loop of its own keeps the chains of operations short."""
    for i in range(x.shape[0]):
        bits = simd.as_int32(inverse * (load(wide, x, i) - low) + _ROUND)
        clipped = simd.minimum(simd.maximum(bits, _ROUND_BITS), _ROUND_BITS + nmax)
        store(wide, codes, i, simd.as_float(clipped) - _ROUND)


@helper
def _round_wrapping(wide, x, inverse, low, nmax, codes):
    """The same where some codes wrap as ggml's integers do."""
    for i in range(x.shape[0]):
        code = simd.nearest(inverse * (load(wide, x, i) - low))
        store(wide, codes, i, simd.to_float(simd.minimum(simd.maximum(code, 0), nmax)))


@helper
def _sums(wide, x, weights, codes):
    """Σ w·l, Σ w·l² and Σ w·l·x."""
    sum_l, sum_l2, sum_xl = simd.splat(wide, ZERO), simd.splat(wide, ZERO), simd.splat(wide, ZERO)
    for i in range(x.shape[0]):
        code = load(wide, codes, i)
        weighted = load(wide, weights, i) * code
        sum_l += weighted
        sum_l2 += weighted * code
        sum_xl += weighted * load(wide, x, i)
    return sum_l, sum_l2, sum_xl


@helper
def _squared_error(wide, x, weights, codes, scale, low):
    error = simd.splat(wide, ZERO)
    for i in range(x.shape[0]):
        difference = scale * load(wide, codes, i) + low - load(wide, x, i)
        error += load(wide, weights, i) * (difference * difference)
    return error


@helper
def _absolute_error(wide, x, weights, codes, scale, low):
    error = simd.splat(wide, ZERO)
    for i in range(x.shape[0]):
        difference = scale * load(wide, codes, i) + low - load(wide, x, i)
        error += load(wide, weights, i) * abs(difference)
    return error


@helper
def _error(wide, x, weights, codes, scale, low, absolute):
    if absolute:
        return _absolute_error(wide, x, weights, codes, scale, low)
    return _squared_error(wide, x, weights, codes, scale, low)


@helper
def _range_and_sums(wide, x, weights):
    """Smallest and largest value, Σ w and Σ w·x."""
    low = load(wide, x, 0)
    high = low
    sum_w = load(wide, weights, 0)
    sum_x = sum_w * low
    for i in range(1, x.shape[0]):
        value, weight = load(wide, x, i), load(wide, weights, i)
        low = simd.select(value < low, value, low)
        high = simd.select(value > high, value, high)
        sum_w += weight
        sum_x += weight * value
    return low, high, sum_w, sum_x


@helper
def search_scale_and_min(wide, x, weights, codes, nmax, search, absolute, found):
    """Scale and min ≥ 0 of x ≈ scale · code − min, code 0..nmax, for the tiles x and weights.

    ``search`` is the first inverse scale, the step and the number of steps; ``absolute`` compares absolute
    instead of squared errors. ``found`` gets four vectors:
    scale, min, and the inverse scale and minimum that round x to the best codes. ``codes`` is scratch like x.
    Twin of ``search_scale_and_min`` (``make_qkx2_quants``).
    """
    first, step, steps = search
    top = np.float32(nmax)
    lowest, high, sum_w, sum_x = _range_and_sums(wide, x, weights)
    low = simd.select(lowest > ZERO, ZERO, lowest)
    flat = high == low
    flat_low = low
    inverse = top / (high - low)
    scale = _ONE / inverse
    _round_wrapping(wide, x, inverse, low, nmax, codes)
    error = _error(wide, x, weights, codes, scale, low, absolute)
    best_inverse, best_low = inverse, low
    for i in range(steps + 1):
        inverse = (first + step * np.float32(i) + top) / (high - low)  # low moves: ggml's quirk
        reach = abs(inverse * (lowest - low)) + abs(inverse * (high - low))
        if simd.all_of(simd.select(flat, ZERO, reach) < _WRAPS):
            _round(wide, x, inverse, low, nmax, codes)
        else:
            _round_wrapping(wide, x, inverse, low, nmax, codes)
        sum_l, sum_l2, sum_xl = _sums(wide, x, weights, codes)
        determinant = sum_w * sum_l2 - sum_l * sum_l
        trial_scale = (sum_w * sum_xl - sum_x * sum_l) / determinant
        trial_low = (sum_l2 * sum_x - sum_l * sum_xl) / determinant
        clipped = trial_low > ZERO
        if simd.any_of(clipped):
            trial_low = simd.select(clipped, ZERO, trial_low)
            trial_scale = simd.select(clipped, sum_xl / sum_l2, trial_scale)
        trial_error = _error(wide, x, weights, codes, trial_scale, trial_low, absolute)
        better = trial_error < simd.select(determinant > ZERO, error, -_INFINITY)
        error = simd.select(better, trial_error, error)
        scale = simd.select(better, trial_scale, scale)
        best_inverse = simd.select(better, inverse, best_inverse)
        best_low = simd.select(better, low, best_low)
        low = simd.select(better, trial_low, low)
    store(wide, found, 0, simd.select(flat, ZERO, scale))
    store(wide, found, 1, -simd.select(flat, flat_low, low))
    store(wide, found, 2, simd.select(flat, ZERO, best_inverse))
    store(wide, found, 3, best_low)


@helper
def signed_peak(wide, x):
    """The value of largest magnitude, with its sign; of equal ones the first; never −0."""
    peak, magnitude = simd.splat(wide, ZERO), simd.splat(wide, ZERO)
    for i in range(x.shape[0]):
        value = load(wide, x, i)
        larger = abs(value) > magnitude
        peak = simd.select(larger, value, peak)
        magnitude = simd.select(larger, abs(value), magnitude)
    return peak


@helper
def _symmetric_sums(wide, x, weights, weighted_x, inverse, nmax):
    """Σ w·x·l and Σ w·l² for the codes l of −nmax..nmax − 1; none can wrap."""
    sum_lx, sum_l2 = simd.splat(wide, ZERO), simd.splat(wide, ZERO)
    highest = _ROUND_BITS + (nmax - 1)
    for i in range(x.shape[0]):
        bits = simd.as_int32(inverse * load(wide, x, i) + _ROUND)
        code = simd.as_float(simd.minimum(simd.maximum(bits, _ROUND_BITS - nmax), highest)) - _ROUND
        sum_lx += load(wide, weighted_x, i) * code
        sum_l2 += load(wide, weights, i) * code * code
    return sum_lx, sum_l2


@helper
def _upper_symmetric_sums(wide, x, weights, weighted_x, inverse, nmax):
    """The same where no code rounds below −nmax."""
    sum_lx, sum_l2 = simd.splat(wide, ZERO), simd.splat(wide, ZERO)
    highest = _ROUND_BITS + (nmax - 1)
    for i in range(x.shape[0]):
        bits = simd.as_int32(inverse * load(wide, x, i) + _ROUND)
        code = simd.as_float(simd.minimum(bits, highest)) - _ROUND
        sum_lx += load(wide, weighted_x, i) * code
        sum_l2 += load(wide, weights, i) * code * code
    return sum_lx, sum_l2


@helper
def search_symmetric_scale(wide, x, weights, weighted_x, nmax, found):
    """Scale of x ≈ scale · code, code −nmax..nmax − 1, for the tiles x, weights and weights · x.

    ``found`` gets two vectors: the scale, and the inverse scale that rounds x to the best codes; both are 0
    in lanes of zeros, for which ggml stores the codes −nmax. Twin of ``search_symmetric_scale``
    (``make_qx_quants``).
    """
    levels = np.float32(nmax)
    peak = signed_peak(wide, x)
    zero = abs(peak) < _ZERO_BLOCK
    peak = simd.select(zero, _ONE, peak)
    best_inverse = -levels / peak
    sum_lx, sum_l2 = _upper_symmetric_sums(wide, x, weights, weighted_x, best_inverse, nmax)
    scale = simd.select(sum_l2 != ZERO, sum_lx / sum_l2, ZERO)
    best = scale * sum_lx
    for i in range(-9, 10):
        if i == 0:
            continue
        inverse = -(levels + _TENTH * np.float32(i)) / peak
        if i < 5:
            sum_lx, sum_l2 = _upper_symmetric_sums(wide, x, weights, weighted_x, inverse, nmax)
        else:
            sum_lx, sum_l2 = _symmetric_sums(wide, x, weights, weighted_x, inverse, nmax)
        better = sum_lx * sum_lx > simd.select(sum_l2 > ZERO, best * sum_l2, _INFINITY)
        scale = simd.select(better, sum_lx / sum_l2, scale)
        best = simd.select(better, scale * sum_lx, best)
        best_inverse = simd.select(better, inverse, best_inverse)
    store(wide, found, 0, simd.select(zero, ZERO, scale))
    store(wide, found, 1, simd.select(zero, ZERO, best_inverse))
