"""What the encoders of Q4_1 and Q5_1 share: codes from the smallest value up, one scale and that minimum.

Without importance a block is two vectors of 16 lanes, its halves, which the nibbles want side by side; under
importance, as many blocks as lanes are searched together, one per lane.
"""

from __future__ import annotations

import numpy as np

from edgeq.kernels_cpu import simd
from edgeq.kernels_cpu.encode.lane_search import search_scale_and_min
from edgeq.kernels_cpu.encode.lane_weights import load_row_weights
from edgeq.kernels_cpu.encode.tiles import vectors
from edgeq.kernels_cpu.jit import helper
from edgeq.kernels_cpu.scalar import ZERO

_ONE = np.float32(1)
_HALF = np.float32(0.5)
_SEARCH = (np.float32(-0.9), np.float32(0.05), 36)


@helper
def round_by_range(sixteen, block, nmax):
    """Scale and minimum of a block, float32 ``[32]``, and the codes of its halves (int32 vectors).

    Twin of ``round_by_range`` in formats.
    """
    low, high = simd.load(sixteen, simd.address(block)), simd.load(sixteen, simd.address(block) + 64)
    least, most = simd.min_of(simd.minimum(low, high)), simd.max_of(simd.maximum(low, high))
    if least == ZERO:  # of −0 and 0 the first counts
        zeros = simd.mask_bits(low == ZERO) | (simd.mask_bits(high == ZERO) << 16)
        least = block[simd.first_bit(zeros)]
        most = most if most > ZERO else least
    d = (most - least) / np.float32(nmax)
    inverse = _ONE / d if d != ZERO else ZERO
    if not np.isfinite(inverse):  # d is subnormal: all codes 0, as x86's conversion has it in ggml
        none = simd.splat(sixteen, 0)
        return d, least, none, none
    low_codes = simd.to_int32((low - least) * inverse + _HALF)
    high_codes = simd.to_int32((high - least) * inverse + _HALF)
    return d, least, simd.minimum(low_codes, nmax), simd.minimum(high_codes, nmax)


@helper
def search_blocks(isa, wide, values, importance, squares, first, b, last, nmax, tiles, found):
    """Scales and minima of blocks b.. under importance; ``squares`` is of rows first.. of the blocks."""
    tile, weights, codes = tiles[0], tiles[1], tiles[2]
    load_row_weights(isa, wide, values, importance, squares, first, b, last, tile, weights)
    search_scale_and_min(wide, tile, weights, codes, nmax, _SEARCH, False, found)


@helper
def searched_codes(sixteen, at, inverse, least, nmax):
    """Codes of the halves of the block at an address, by what the search found."""
    low = simd.nearest((simd.load(sixteen, at) - least) * inverse)
    high = simd.nearest((simd.load(sixteen, at + 64) - least) * inverse)
    return simd.minimum(simd.maximum(low, 0), nmax), simd.minimum(simd.maximum(high, 0), nmax)


@helper
def scratch(wide, rows):
    """Tiles for the search, its result, and mean squares of the rows."""
    lanes = simd.lanes_of(wide)
    return vectors(wide, 96).reshape(3, 32, lanes), vectors(wide, 4), np.empty(rows, np.float32)
