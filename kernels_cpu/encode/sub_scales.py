"""Integer scales (or mins) of the sub-blocks of one super-block per lane: twins of ``super_block``, ``q2_k``.

Both functions take ``found`` of the search (``[sub-blocks, 4, lanes]``) and ``which`` of its vectors (0
scales, 1 mins). They leave codes (int32 ``[sub-blocks, lanes]``) of 0..nmax and the float16 bits of their
scale (int32 ``halves[which]``), and return False when that overflows float16.
"""

from __future__ import annotations

import numpy as np

from edgeq.kernels_cpu import simd
from edgeq.kernels_cpu.encode.tiles import load, load_int32, store
from edgeq.kernels_cpu.half_floats import to_half
from edgeq.kernels_cpu.jit import helper
from edgeq.kernels_cpu.scalar import ZERO

_ONE = np.float32(1)
_TENTH = np.float32(0.1)
_ZERO_BLOCK = np.float32(1e-15)  # GROUP_MAX_EPS
_INFINITY = np.float32(np.inf)


@helper
def _largest(wide, found, which):
    largest = simd.splat(wide, ZERO)
    for j in range(found.shape[0]):
        scale = load(wide, found[j], which)
        largest = simd.select(scale > largest, scale, largest)
    return largest


@helper
def _store_half(wide, scale, which, halves):
    half = to_half(wide, scale)
    store(wide, halves, which, half)
    return simd.all_of((half & 0x7C00) != 0x7C00)


@helper
def round_scales(wide, found, which, nmax, codes, halves):
    """Without importance: by the largest of each lane. A negative one wraps to 8 bits, as in ggml."""
    top = np.float32(nmax)
    largest = _largest(wide, found, which)
    inverse = simd.select(largest > ZERO, top / largest, ZERO)
    for j in range(found.shape[0]):
        store(wide, codes, j, simd.nearest(inverse * load(wide, found[j], which)) & 0xFF)
    return _store_half(wide, largest / top, which, halves)


@helper
def fit_scales(wide, found, which, nmax, totals, codes, halves):
    """Under importance: least squares weighted by totals ``[sub-blocks, lanes]`` (``make_qp_quants``)."""
    finite = simd.splat(wide, ZERO) == ZERO
    for j in range(found.shape[0]):
        finite = finite & (abs(load(wide, found[j], which)) < _INFINITY)
    if not simd.all_of(finite):
        return False
    high = _largest(wide, found, which)
    inverse = _best_inverse(wide, found, which, nmax, totals, high)
    sum_lx, sum_l2 = simd.splat(wide, ZERO), simd.splat(wide, ZERO)
    for j in range(found.shape[0]):
        x, weight = load(wide, found[j], which), load(wide, totals, j)
        rounded = simd.minimum(simd.nearest(inverse * x), nmax)
        store(wide, codes, j, rounded & 0xFF)
        level = simd.to_float(rounded)
        sum_lx += weight * x * level
        sum_l2 += weight * level * level
    for _ in range(5):
        for j in range(found.shape[0]):
            x, weight = load(wide, found[j], which), load(wide, totals, j)
            sum_lx, sum_l2 = _move_code(wide, x, weight, nmax, codes, j, sum_lx, sum_l2)
    zero = high < _ZERO_BLOCK
    for j in range(found.shape[0]):
        store(wide, codes, j, simd.select(zero, 0, load_int32(wide, codes, j)))
    scale = simd.select(sum_l2 > ZERO, sum_lx / sum_l2, ZERO)
    return _store_half(wide, simd.select(zero, ZERO, scale), which, halves)


@helper
def _best_inverse(wide, found, which, nmax, totals, high):
    top = np.float32(nmax)
    inverse = top / high
    scale = _ONE / inverse
    error = simd.splat(wide, ZERO)
    for j in range(found.shape[0]):
        x = load(wide, found[j], which)
        difference = x - scale * simd.to_float(simd.nearest(inverse * x) & 0xFF)
        error += load(wide, totals, j) * difference * difference
    for i in range(-4, 5):
        if i == 0:
            continue
        trial = (_TENTH * np.float32(i) + top) / high
        scale = _ONE / trial
        trial_error = simd.splat(wide, ZERO)
        for j in range(found.shape[0]):
            x = load(wide, found[j], which)
            difference = x - scale * simd.to_float(simd.minimum(simd.nearest(trial * x), nmax))
            trial_error += load(wide, totals, j) * difference * difference
        better = trial_error < error
        error = simd.select(better, trial_error, error)
        inverse = simd.select(better, trial, inverse)
    return inverse


@helper
def _move_code(wide, x, weight, nmax, codes, j, sum_lx, sum_l2):
    """Move code j to its optimum, given the others, in the lanes where that helps; the new sums."""
    code = load_int32(wide, codes, j)
    old = simd.to_float(code)
    other_lx = sum_lx - weight * x * old
    other_l2 = sum_l2 - weight * old * old
    new_code = simd.minimum(simd.nearest(x * other_l2 / other_lx), nmax)
    new = simd.to_float(new_code)
    new_lx = other_lx + weight * x * new
    new_l2 = other_l2 + weight * new * new
    better = (other_lx > ZERO) & (other_l2 > ZERO) & (new_code != code)
    better = better & (new_lx * new_lx * sum_l2 > sum_lx * sum_lx * new_l2)
    store(wide, codes, j, simd.select(better, new_code & 0xFF, code))
    return simd.select(better, new_lx, sum_lx), simd.select(better, new_l2, sum_l2)
