"""What the refiners of Q4_1 and Q5_1 share, one block per lane: twin of the module of this name in formats."""

from __future__ import annotations

import numpy as np

from edgeq.formats.blocks.refine.affine_super_block import KEEP
from edgeq.kernels_cpu import simd
from edgeq.kernels_cpu.encode.tiles import block_addresses, load, load_tile, store, vectors
from edgeq.kernels_cpu.half_floats import from_half, to_half
from edgeq.kernels_cpu.jit import helper
from edgeq.kernels_cpu.refine.affine_search import (
    LOW,
    SCALE,
    SLOPE,
    SUM_L,
    SUM_L2,
    SUM_LX,
    inverse_of,
    keep_fit,
    least_squares,
    search,
    store_totals,
    sums_and_error,
    whole_within,
)
from edgeq.kernels_cpu.scalar import ZERO, load_half, store_half

_LOWEST = np.float32(-np.inf)
D, LOW_AS_STORED = 0, 1  # vectors of the scale and the min, −m


@helper
def scratch(wide):
    """Memory for ``refine_batch``: values, weights, totals, sums, fit, the best scale and min; codes."""
    tiles = vectors(wide, 32), vectors(wide, 32), vectors(wide, 4), vectors(wide, 3), vectors(wide, 4)
    return (*tiles, vectors(wide, 2), np.empty(32, np.uint8))


@helper
def load_values(isa, values, importance, first, last, x, weights):
    """Tiles of as many blocks from ``first`` on as lanes."""
    addresses = np.empty(x.shape[1], np.int64)
    block_addresses(values, first, last, 32, last, addresses)
    load_tile(isa, addresses, 0, x)
    block_addresses(importance, first, last, 32, importance.size // 32, addresses)
    load_tile(isa, addresses, 0, weights)


@helper
def load_scales(blocks, first, last, stored):
    """Block first + lane into each lane of ``stored``; lanes beyond ``last`` repeat the last block."""
    for lane in range(stored.shape[1]):
        block = blocks[min(first + lane, last - 1)]
        stored[D, lane], stored[LOW_AS_STORED, lane] = load_half(block, 0), -load_half(block, 2)


@helper
def store_scales(block, lane, stored):
    store_half(block, 0, stored[D, lane])
    store_half(block, 2, -stored[LOW_AS_STORED, lane])


@helper
def refine_batch(wide, nmax, parameters, memory):
    """Bit mask of the lanes whose scale and min, in ``memory``, were replaced. Twin of ``refine_range``."""
    x, weights, totals, sums, fit, best, _ = memory
    starts, steps, rounds = parameters
    top = np.float32(nmax)
    scale, low = load(wide, best, D), load(wide, best, LOW_AS_STORED)
    store_totals(wide, x, weights, totals)
    error = sums_and_error(wide, x, weights, scale, low, top, sums) * KEEP
    search(wide, x, weights, scale, low, sums, totals, top, _LOWEST, starts, steps, fit)
    improved = error < ZERO
    for _ in range(rounds):
        wanted = load(wide, fit, SCALE)
        scale = from_half(wide, to_half(wide, wanted))
        low = load(wide, fit, LOW) + load(wide, fit, SLOPE) * (scale - wanted)
        low = from_half(wide, to_half(wide, low))
        trial_error = sums_and_error(wide, x, weights, scale, low, top, sums)
        better = trial_error < error
        improved = improved | better
        error = simd.select(better, trial_error, error)
        store(wide, best, D, simd.select(better, scale, load(wide, best, D)))
        store(wide, best, LOW_AS_STORED, simd.select(better, low, load(wide, best, LOW_AS_STORED)))
        sum_l, sum_l2 = load(wide, sums, SUM_L), load(wide, sums, SUM_L2)
        again = least_squares(wide, sum_l, sum_l2, load(wide, sums, SUM_LX), totals, _LOWEST)
        keep_fit(wide, again[5], again, fit)
    return simd.mask_bits(improved)


@helper
def round_codes(isa, values, block, lane, nmax, stored, codes):
    """Nearest codes (uint8 ``[32]``) of one block, for the scale and min of its lane."""
    eight = simd.resized(isa, 8)
    x, out = simd.address(values) + 128 * block, simd.address(codes)
    inverse = inverse_of(simd.splat(eight, stored[D, lane]))
    for i in range(0, 32, 8):
        shifted = simd.load(eight, x + 4 * i) + stored[LOW_AS_STORED, lane]
        simd.store(out + i, simd.to_uint8(simd.to_int32(whole_within(shifted * inverse, np.float32(nmax)))))
