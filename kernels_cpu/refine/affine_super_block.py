"""Joint choice of a super-block's scales, one per lane: twin of the module of this name in formats.

Scales as stored are a tile of float32: d, dmin, the sub-blocks' scales, their mins (see ``scratch``).
"""

from __future__ import annotations

import numpy as np

from edgeq.formats.blocks.refine.affine_super_block import KEEP
from edgeq.kernels_cpu import simd
from edgeq.kernels_cpu.encode.tiles import block_addresses, load, load_tile, store, vectors
from edgeq.kernels_cpu.half_floats import from_half, to_half
from edgeq.kernels_cpu.jit import helper
from edgeq.kernels_cpu.refine.affine_search import (
    CURVATURE,
    LOW,
    SCALE,
    SLOPE,
    SUM_L,
    SUM_L2,
    SUM_LX,
    TOTAL_W,
    TOTAL_WX,
    clamped,
    error_of,
    inverse_of,
    keep_fit,
    least_squares,
    search,
    store_totals,
    sums_and_error,
    whole_within,
)
from edgeq.kernels_cpu.scalar import ZERO

_ONE = np.float32(1)
_INFINITY = np.float32(np.inf)
D, DMIN, SCALES = 0, 1, 2  # vectors of the scales as stored; the mins follow the scales


@helper
def scratch(wide, sub_blocks):
    """Memory for ``refine_batch``; the last array is for the type's own use.

    Values and weights ``[256, lanes]``; of each sub-block totals, sums, fit and targets; stored scales:
    the best and the trial; codes of one super-block.
    """
    lanes = simd.lanes_of(wide)
    return (
        vectors(wide, 256),
        vectors(wide, 256),
        vectors(wide, 4 * sub_blocks).reshape(sub_blocks, 4, lanes),
        vectors(wide, 3 * sub_blocks).reshape(sub_blocks, 3, lanes),
        vectors(wide, 4 * sub_blocks).reshape(sub_blocks, 4, lanes),
        vectors(wide, 2 * sub_blocks),
        vectors(wide, 2 + 2 * sub_blocks),
        vectors(wide, 2 + 2 * sub_blocks),
        np.empty(256, np.uint8),
    )


@helper
def _half(wide, x):
    return from_half(wide, to_half(wide, x))


@helper
def _rounded(wide, x, weights, stored, sums, top):
    """Sums of the nearest codes of every sub-block, stored, and the error of the super-block."""
    sub_blocks = len(sums)
    each = len(x) // sub_blocks
    d, dmin = load(wide, stored, D), load(wide, stored, DMIN)
    total = simd.splat(wide, ZERO)
    for j in range(sub_blocks):
        scale = d * load(wide, stored, SCALES + j)
        low = dmin * load(wide, stored, SCALES + sub_blocks + j)
        part = slice(j * each, j * each + each)
        total += sums_and_error(wide, x[part], weights[part], scale, low, top, sums[j])
    return total


@helper
def _best_divisor(wide, values, weights, divisors, highest):
    """Of the units largest / divisor in float16, the one whose multiples are nearest to the values."""
    largest = simd.splat(wide, ZERO)
    for j in range(len(values)):
        value = load(wide, values, j)
        largest = simd.select(value > largest, value, largest)
    best = _half(wide, largest / highest)
    least = simd.splat(wide, _INFINITY)
    for divisor in divisors:
        unit = _half(wide, largest / divisor)
        inverse = inverse_of(unit)
        cost = simd.splat(wide, ZERO)
        for j in range(len(values)):
            value = load(wide, values, j)
            difference = whole_within(value * inverse, highest) * unit - value
            cost += load(wide, weights, j) * (difference * difference)
        better = cost < least
        least = simd.select(better, cost, least)
        best = simd.select(better, unit, best)
    return best


@helper
def _choose_scales(wide, fits, totals, targets, divisors, highest, trial):
    """d for the scales that fit, then dmin for the mins that go with the scales in units of d."""
    n = len(fits)
    values, weights = targets[:n], targets[n:]
    for j in range(n):
        store(wide, values, j, load(wide, fits[j], SCALE))
        store(wide, weights, j, load(wide, fits[j], CURVATURE))
    d = _best_divisor(wide, values, weights, divisors, highest)
    inverse = inverse_of(d)
    for j in range(n):
        scale = load(wide, fits[j], SCALE)
        off = whole_within(scale * inverse, highest) * d - scale
        store(wide, values, j, load(wide, fits[j], LOW) + load(wide, fits[j], SLOPE) * off)
        store(wide, weights, j, load(wide, totals[j], TOTAL_W))
    store(wide, trial, D, d)
    store(wide, trial, DMIN, _best_divisor(wide, values, weights, divisors, highest))


@helper
def _pair_cost(wide, fit, total_w, scale, d, dmin, inverse, highest):
    """Cost of a whole scale with the best whole min for it, and that min."""
    off = scale * d - load(wide, fit, SCALE)
    low = load(wide, fit, LOW) + load(wide, fit, SLOPE) * off
    low_whole = whole_within(low * inverse, highest)
    low_off = low_whole * dmin - low
    return load(wide, fit, CURVATURE) * (off * off) + total_w * (low_off * low_off), low_whole


@helper
def _choose_pairs(wide, fits, totals, highest, trial):
    """Whole scale and min of each sub-block in units of d and dmin."""
    d, dmin = load(wide, trial, D), load(wide, trial, DMIN)
    inverse, inverse_min = inverse_of(d), inverse_of(dmin)
    for j in range(len(fits)):
        total_w = load(wide, totals[j], TOTAL_W)
        level = clamped(load(wide, fits[j], SCALE) * inverse, highest)
        below = simd.to_float(simd.to_int32(level))
        above = simd.minimum(below + _ONE, highest)
        cost, low = _pair_cost(wide, fits[j], total_w, below, d, dmin, inverse_min, highest)
        known = cost < _INFINITY
        above_cost, above_low = _pair_cost(wide, fits[j], total_w, above, d, dmin, inverse_min, highest)
        better = above_cost < simd.select(known, cost, _INFINITY)
        scale = simd.select(better, above, simd.select(known, below, ZERO))
        low = simd.select(better, above_low, simd.select(known, low, ZERO))
        store(wide, trial, SCALES + j, scale)
        store(wide, trial, SCALES + len(fits) + j, low)


@helper
def _choose_nearby(wide, x, weights, top, highest, reach, trial):
    """Of the integers within ``reach`` of those in ``trial``, each sub-block's of least true error."""
    n = (len(trial) - SCALES) // 2
    each = len(x) // n
    d, dmin = load(wide, trial, D), load(wide, trial, DMIN)
    for j in range(n):
        part = slice(j * each, j * each + each)
        tile, tile_weights = x[part], weights[part]
        middle, middle_min = load(wide, trial, SCALES + j), load(wide, trial, SCALES + n + j)
        best_scale, best_low = middle, middle_min
        least = simd.splat(wide, _INFINITY)
        for scale_step in range(-reach, reach + 1):
            for min_step in range(-reach, reach + 1):
                scale = clamped(middle + np.float32(scale_step), highest)
                low = clamped(middle_min + np.float32(min_step), highest)
                error = error_of(wide, tile, tile_weights, d * scale, dmin * low, top)
                better = error < least
                least = simd.select(better, error, least)
                best_scale = simd.select(better, scale, best_scale)
                best_low = simd.select(better, low, best_low)
        store(wide, trial, SCALES + j, best_scale)
        store(wide, trial, SCALES + n + j, best_low)


@helper
def _fit_scales(wide, sums, totals, trial):
    """Least squares for d and dmin, into ``trial``, with all integers and codes as they are."""
    n = len(sums)
    a, b, c = simd.splat(wide, ZERO), simd.splat(wide, ZERO), simd.splat(wide, ZERO)
    p, q = simd.splat(wide, ZERO), simd.splat(wide, ZERO)
    for j in range(n):
        scale, low = load(wide, trial, SCALES + j), load(wide, trial, SCALES + n + j)
        a += scale * scale * load(wide, sums[j], SUM_L2)
        b += scale * low * load(wide, sums[j], SUM_L)
        c += low * low * load(wide, totals[j], TOTAL_W)
        p += scale * load(wide, sums[j], SUM_LX)
        q += low * load(wide, totals[j], TOTAL_WX)
    determinant = a * c - b * b
    d, dmin = (p * c - q * b) / determinant, (p * b - a * q) / determinant
    joint = (determinant > ZERO) & (dmin > ZERO)
    d, dmin = simd.select(joint, d, p / a), simd.select(joint, dmin, ZERO)
    store(wide, trial, D, _half(wide, simd.select(d > ZERO, d, ZERO)))
    store(wide, trial, DMIN, _half(wide, dmin))


@helper
def _fit_again(wide, sums, totals, fits):
    """Fits of the codes of the last trial, where they are solvable."""
    for j in range(len(sums)):
        sum_l, sum_l2 = load(wide, sums[j], SUM_L), load(wide, sums[j], SUM_L2)
        fit = least_squares(wide, sum_l, sum_l2, load(wide, sums[j], SUM_LX), totals[j], ZERO)
        keep_fit(wide, fit[5], fit, fits[j])


@helper
def load_values(isa, values, importance, first, last, x, weights):
    """Tiles of as many super-blocks from ``first`` on as lanes."""
    addresses = np.empty(x.shape[1], np.int64)
    block_addresses(values, first, last, 256, last, addresses)
    load_tile(isa, addresses, 0, x)
    block_addresses(importance, first, last, 256, importance.size // 256, addresses)
    load_tile(isa, addresses, 0, weights)


@helper
def refine_batch(wide, nmax, top, parameters, memory):
    """Bit mask of the lanes whose stored scales, in ``memory``, were replaced by better ones.

    ``memory`` holds the values, the weights and ggml's scales. Twin of ``refine_scales``.
    """
    x, weights, totals, sums, fits, targets, best, trial, _ = memory
    starts, steps, divisors, rounds, sweeps, reach = parameters
    levels, highest = np.float32(nmax), np.float32(top)
    each = len(x) // len(sums)
    error = _rounded(wide, x, weights, best, sums, levels) * KEEP
    for j in range(len(sums)):
        part = slice(j * each, j * each + each)
        tile, tile_weights = x[part], weights[part]
        store_totals(wide, tile, tile_weights, totals[j])
        scale = load(wide, best, D) * load(wide, best, SCALES + j)
        low = load(wide, best, DMIN) * load(wide, best, SCALES + len(sums) + j)
        search(wide, tile, tile_weights, scale, low, sums[j], totals[j], levels, ZERO, starts, steps, fits[j])
    _choose_scales(wide, fits, totals, targets, divisors, highest, trial)
    improved = error < ZERO
    for i in range(rounds + sweeps):
        if i < rounds:
            _choose_pairs(wide, fits, totals, highest, trial)
        else:
            _choose_nearby(wide, x, weights, levels, highest, reach, trial)
        trial_error = _rounded(wide, x, weights, trial, sums, levels)
        better = trial_error < error
        improved = improved | better
        error = simd.select(better, trial_error, error)
        for which in range(len(best)):
            kept = load(wide, best, which)
            store(wide, best, which, simd.select(better, load(wide, trial, which), kept))
        if i + 1 < rounds:
            _fit_again(wide, sums, totals, fits)
        if i + 1 < rounds + sweeps:
            _fit_scales(wide, sums, totals, trial)
    return simd.mask_bits(improved)


@helper
def round_codes(isa, values, block, lane, nmax, best, codes):
    """Nearest codes (uint8 ``[256]``) of one super-block, for the stored scales of its lane."""
    eight = simd.resized(isa, 8)
    sub_blocks = (len(best) - SCALES) // 2
    each = 256 // sub_blocks
    x, out = simd.address(values) + 1024 * block, simd.address(codes)
    for j in range(sub_blocks):
        scale = best[D, lane] * best[SCALES + j, lane]
        low = best[DMIN, lane] * best[SCALES + sub_blocks + j, lane]
        inverse = inverse_of(simd.splat(eight, scale))
        for i in range(j * each, j * each + each, 8):
            code = whole_within((simd.load(eight, x + 4 * i) + low) * inverse, np.float32(nmax))
            simd.store(out + i, simd.to_uint8(simd.to_int32(code)))
