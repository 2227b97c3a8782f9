"""The search of Q3_K without importance: twin of ``search_by_moves``, same bytes.

Most sub-blocks keep the codes they start with. Which do, is found out with one sub-block per lane: as long as
nothing moves, the sums stay, so that all moves can be judged independently. In each of the others a vector
tries all moves together too, makes the first that helps, and tries again.
"""

from __future__ import annotations

import numpy as np

from edgeq.kernels_cpu import simd
from edgeq.kernels_cpu.encode.lane_search import signed_peak
from edgeq.kernels_cpu.encode.tiles import load, load_super_tile, store
from edgeq.kernels_cpu.jit import helper
from edgeq.kernels_cpu.scalar import ZERO

_ROUND = np.float32(12582912.0)  # 1.5 · 2^23
_ROUND_BITS = np.int32(0x4B400000)
_EXPONENT = np.int32(0x4B000000)  # of _ROUND
_INFINITY = np.float32(np.inf)
_ZERO_BLOCK = np.float32(1e-15)  # GROUP_MAX_EPS
_ROUNDS = 5
_HALF = np.float32(0.5)
_MARGIN = np.float32(1e-4)
_WEIGHT_MARGIN = np.float32(4e-5)


@helper
def _clipped(bits, nmax):
    """The code in the low bits of a float plus _ROUND."""
    return (
        simd.as_float(simd.minimum(simd.maximum(bits, _ROUND_BITS - nmax), _ROUND_BITS + (nmax - 1))) - _ROUND
    )


@helper
def _could_move(wide, x, codes, peak, sum_lx, sum_l2, nmax):
    """Bits of the lanes in which some code may move: all that do, and few others.

    A code l moves by one where |y − l| + x²·y²/2·Σx²·l² > 1/2, y = x·Σx²·l²/Σx³·l; the margin covers the
    rounding of ggml's own comparison. Where the peak is positive, Σx³·l is negative and ggml moves none.
    """
    inverse = sum_l2 / sum_lx
    factor = inverse / sum_lx * _HALF
    largest = simd.splat(wide, ZERO)
    for i in range(x.shape[0]):
        value = load(wide, x, i)
        weight = value * value
        y = simd.minimum(simd.maximum(value * inverse, np.float32(-nmax)), np.float32(nmax - 1))
        largest = simd.maximum(abs(y - load(wide, codes, i)) + weight * weight * factor, largest)
    limit = _HALF - (_MARGIN + _WEIGHT_MARGIN * sum_l2 / (peak * peak))
    return simd.mask_bits(simd.select(sum_lx > ZERO, largest, ZERO) > simd.maximum(limit, _MARGIN))


@helper
def _start(wide, x, codes, nmax, start):
    """Codes of the tile x by the peak of each lane, 0 where all is zero; the lanes in which any could move.

    ``start`` gets three vectors: the inverse scale that gave them, Σ x³·l and Σ x²·l².
    """
    peak = signed_peak(wide, x)
    inverse = simd.select(abs(peak) < _ZERO_BLOCK, ZERO, np.float32(-nmax) / peak)
    sum_lx, sum_l2 = simd.splat(wide, ZERO), simd.splat(wide, ZERO)
    for i in range(x.shape[0]):
        value = load(wide, x, i)
        weight = value * value
        code = _clipped(simd.as_int32(inverse * value + _ROUND), nmax)
        store(wide, codes, i, code)
        sum_lx += weight * value * code
        sum_l2 += weight * code * code
    store(wide, start, 0, inverse)
    store(wide, start, 1, sum_lx)
    store(wide, start, 2, sum_l2)
    return _could_move(wide, x, codes, peak, sum_lx, sum_l2, nmax)


@helper
def _move(x, codes, sum_lx, sum_l2, nmax):
    """The optimum of each code given the others, the sums with it, and where these are better.

    Better where positive: masks of several registers would be packed and unpacked to be combined.
    """
    weight = x * x
    weighted = weight * x
    other_lx, other_l2 = sum_lx - weighted * codes, sum_l2 - weight * codes * codes
    bits = (simd.as_int32(x * other_l2 / other_lx + _ROUND) & 0x7FFFFF) | _EXPONENT  # wraps as in ggml
    new = _clipped(bits, nmax)
    new_lx, new_l2 = other_lx + weighted * new, other_l2 + weight * new * new
    limit = simd.select(simd.minimum(new_l2, other_lx) > ZERO, sum_lx * sum_lx * new_l2, _INFINITY)
    gain = new_lx * new_lx * sum_l2 - simd.select(new != codes, limit, _INFINITY)
    return new, new_lx, new_l2, gain


@helper
def moved_codes(sixteen, at, inverse, sum_lx, sum_l2, nmax):
    """The search of the 16 values at an address, from what ``_start`` found; codes as a vector, and sums."""
    x, numbers = simd.load(sixteen, at), simd.lane_numbers(sixteen)
    codes = _clipped(simd.as_int32(x * inverse + _ROUND), nmax)
    done, rounds = 0, 0
    while True:
        new, new_lx, new_l2, gain = _move(
            x, codes, simd.splat(sixteen, sum_lx), simd.splat(sixteen, sum_l2), nmax
        )
        better = simd.mask_bits(gain > ZERO)
        ahead = better >> done << done
        if ahead == 0:
            rounds += 1
            ahead = better
            if better == 0 or rounds == _ROUNDS:
                break
        i = simd.first_bit(ahead)
        codes = simd.select(numbers == np.int32(i), new, codes)
        sum_lx, sum_l2 = simd.lane(new_lx, i), simd.lane(new_l2, i)
        done = i + 1
    return codes, sum_lx, sum_l2


@helper
def search_by_moves(isa, wide, addresses, nmax, tiles, scales, starts, listed):
    """Scales ``[16, lanes]`` of the sub-blocks of 16 values at each lane's address, weighted by x².

    ``starts`` ``[16, 3, lanes]`` gets what ``moved_codes`` wants. Scratch: two tiles of 16 vectors, and
    ``listed``, int32 ``[16 · lanes + 1]``.
    """
    sixteen, lanes = simd.resized(isa, 16), simd.lanes_of(wide)
    count, at = 0, simd.address(listed)
    for sub in range(16):
        load_super_tile(isa, addresses, 16 * sub, tiles[0])
        bits = _start(wide, tiles[0], tiles[1], nmax, starts[sub])
        sum_lx, sum_l2 = load(wide, starts[sub], 1), load(wide, starts[sub], 2)
        store(wide, scales, sub, simd.select(sum_l2 > ZERO, sum_lx / sum_l2, ZERO))
        for lane in range(lanes):
            simd.store_int32(at + 4 * count, sub * lanes + lane)
            count += (bits >> lane) & 1
    for k in range(count):
        number = np.uint32(listed[k])
        sub, lane = number // lanes, number % lanes
        inverse, sum_lx, sum_l2 = starts[sub, 0, lane], starts[sub, 1, lane], starts[sub, 2, lane]
        _, sum_lx, sum_l2 = moved_codes(sixteen, addresses[lane] + 64 * sub, inverse, sum_lx, sum_l2, nmax)
        scales[sub, lane] = sum_lx / sum_l2 if sum_l2 > ZERO else ZERO
