"""What the encoders of Q4_0 and Q5_0 share: 32 codes around zero and one scale.

Without importance a block is two vectors of 16 lanes, its halves, which the nibbles want side by side; under
importance, as many blocks as lanes are searched together, one per lane.
"""

from __future__ import annotations

import numpy as np

from edgeq.kernels_cpu import simd
from edgeq.kernels_cpu.encode.lane_search import search_symmetric_scale
from edgeq.kernels_cpu.encode.lane_weights import load_row_weights
from edgeq.kernels_cpu.encode.tiles import load, store, vectors
from edgeq.kernels_cpu.half_floats import to_half
from edgeq.kernels_cpu.jit import helper
from edgeq.kernels_cpu.scalar import ZERO

_ONE = np.float32(1)
_HALF = np.float32(0.5)


@helper
def round_by_peak(sixteen, at, zero):
    """Scale peak / −zero of the 32 floats at an address, and the codes of its halves (int32 vectors).

    ``zero`` is the code of 0. Twin of ``round_by_peak`` in formats.
    """
    low, high = simd.load(sixteen, at), simd.load(sixteen, at + 64)
    peak = simd.max_of(simd.maximum(abs(low), abs(high)))
    # Bit i tells if value i is the peak, with either sign; the first one's sign counts. No branch: the sign
    # is anybody's guess.
    up = simd.mask_bits(low == peak) | (simd.mask_bits(high == peak) << 16)
    down = simd.mask_bits(low == -peak) | (simd.mask_bits(high == -peak) << 16)
    first = (up | down) & -(up | down)
    d = peak * (np.float32(1 - 2 * np.int64((up & first) != 0)) / np.float32(zero))  # exact: powers of two
    inverse = _ONE / d if d != ZERO else ZERO
    if not np.isfinite(inverse):  # d is subnormal: all codes 0, as x86's conversion has it in ggml
        none = simd.splat(sixteen, 0)
        return d, none, none
    middle = np.float32(zero) + _HALF
    low_codes = simd.to_int32(low * inverse + middle)
    high_codes = simd.to_int32(high * inverse + middle)
    return d, simd.minimum(low_codes, 2 * zero - 1), simd.minimum(high_codes, 2 * zero - 1)


@helper
def store_half(isa, at, x):
    """Round x to float16 at an address; False when it is not finite there."""
    four = simd.resized(isa, 4)
    half = to_half(four, simd.splat(four, x))
    bits = simd.lane(half, 0)
    simd.store_int16(at, bits)
    return (bits & 0x7C00) != 0x7C00


@helper
def search_blocks(isa, wide, values, importance, squares, first, b, last, zero, tiles, found):
    """Scales of blocks b.. under importance ``[columns]``; ``squares`` is of rows first.. of the blocks."""
    tile, weights, weighted = tiles[0], tiles[1], tiles[2]
    load_row_weights(isa, wide, values, importance, squares, first, b, last, tile, weights)
    for i in range(32):
        store(wide, weighted, i, load(wide, weights, i) * load(wide, tile, i))
    search_symmetric_scale(wide, tile, weights, weighted, zero, found)


@helper
def searched_codes(sixteen, at, inverse, zero):
    """Codes 0.. of the halves of the block at an address, by the inverse scale that the search found."""
    low, high = simd.load(sixteen, at), simd.load(sixteen, at + 64)
    if inverse == ZERO:  # a block of zeros: ggml stores codes of −zero
        none = simd.splat(sixteen, 0)
        return none, none
    low_codes = simd.minimum(simd.maximum(simd.nearest(low * inverse), -zero), zero - 1) + zero
    high_codes = simd.minimum(simd.maximum(simd.nearest(high * inverse), -zero), zero - 1) + zero
    return low_codes, high_codes


@helper
def scratch(wide, rows):
    """Tiles for the search, its result, and mean squares of the rows."""
    lanes = simd.lanes_of(wide)
    return vectors(wide, 96).reshape(3, 32, lanes), vectors(wide, 2), np.empty(rows, np.float32)
