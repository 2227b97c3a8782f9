"""The search of Q3_K without importance, one sub-block per lane: twin of ``search_by_moves``, same bytes.

Four of five sub-blocks keep the codes they start with. ``would_move`` finds out which: as long as nothing
moves, the sums stay, so that all moves can be tried independently. Only the others need ``move_codes``, and
are best gathered into full vectors for it.
"""

from __future__ import annotations

import numpy as np

from edgeq.kernels_cpu import simd
from edgeq.kernels_cpu.encode.lane_search import signed_peak
from edgeq.kernels_cpu.encode.tiles import load, store
from edgeq.kernels_cpu.jit import helper
from edgeq.kernels_cpu.scalar import ZERO

_ROUND = np.float32(12582912.0)  # 1.5 · 2^23
_ROUND_BITS = np.int32(0x4B400000)
_EXPONENT = np.int32(0x4B000000)  # of _ROUND
_ONE = np.float32(1)
_ZERO_BLOCK = np.float32(1e-15)  # GROUP_MAX_EPS


@helper
def _optimum(x, other_lx, other_l2, nmax):
    """The best code of x given the sums of the others; wraps and is clipped as in ggml."""
    bits = (simd.as_int32(x * other_l2 / other_lx + _ROUND) & 0x7FFFFF) | _EXPONENT
    clipped = simd.minimum(simd.maximum(bits, _ROUND_BITS - nmax), _ROUND_BITS + (nmax - 1))
    return simd.as_float(clipped) - _ROUND


@helper
def start_codes(wide, x, codes, nmax, found):
    """Codes by the peak of each lane; returns Σ x³·l and Σ x²·l².

    ``found`` gets the scale and the inverse scale, both 0 in lanes of zeros, for which ggml stores −nmax.
    """
    peak = signed_peak(wide, x)
    zero = abs(peak) < _ZERO_BLOCK
    inverse = np.float32(-nmax) / simd.select(zero, _ONE, peak)
    sum_lx, sum_l2 = simd.splat(wide, ZERO), simd.splat(wide, ZERO)
    highest = _ROUND_BITS + (nmax - 1)
    for i in range(x.shape[0]):
        value = load(wide, x, i)
        weight = value * value
        bits = simd.as_int32(inverse * value + _ROUND)
        code = simd.as_float(simd.minimum(simd.maximum(bits, _ROUND_BITS - nmax), highest)) - _ROUND
        store(wide, codes, i, code)
        sum_lx += weight * value * code
        sum_l2 += weight * code * code
    store(wide, found, 0, simd.select((sum_l2 > ZERO) & ~zero, sum_lx / sum_l2, ZERO))
    store(wide, found, 1, simd.select(zero, ZERO, inverse))
    return sum_lx, sum_l2


@helper
def would_move(wide, x, codes, nmax, sum_lx, sum_l2):
    """The lanes in which some code is not its own optimum."""
    moves = sum_lx != sum_lx
    for i in range(x.shape[0]):
        value, code = load(wide, x, i), load(wide, codes, i)
        weight = value * value
        other_lx = sum_lx - weight * value * code
        other_l2 = sum_l2 - weight * code * code
        moves = moves | ((other_lx > ZERO) & (_optimum(value, other_lx, other_l2, nmax) != code))
    return moves


@helper
def move_codes(wide, x, codes, nmax, sum_lx, sum_l2):
    """Move one code at a time to its optimum where that helps, five rounds; returns the scale."""
    for _ in range(5):
        moved = sum_lx != sum_lx
        for i in range(x.shape[0]):
            value, code = load(wide, x, i), load(wide, codes, i)
            weight = value * value
            weighted = weight * value
            other_lx = sum_lx - weighted * code
            other_l2 = sum_l2 - weight * code * code
            new = _optimum(value, other_lx, other_l2, nmax)
            new_lx, new_l2 = other_lx + weighted * new, other_l2 + weight * new * new
            better = (other_lx > ZERO) & (new != code) & (new_l2 > ZERO)
            better = better & (new_lx * new_lx * sum_l2 > sum_lx * sum_lx * new_l2)
            store(wide, codes, i, simd.select(better, new, code))
            sum_lx = simd.select(better, new_lx, sum_lx)
            sum_l2 = simd.select(better, new_l2, sum_l2)
            moved = moved | better
        if not simd.any_of(moved):
            break
    return simd.select(sum_l2 > ZERO, sum_lx / sum_l2, ZERO)
