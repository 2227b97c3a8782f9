"""Refiner of MXFP4: twin of ``edgeq.formats.blocks.refine.mxfp4``."""

from __future__ import annotations

import numpy as np

from edgeq.kernels_cpu import simd
from edgeq.kernels_cpu.decode.mxfp4 import half_power_of_two
from edgeq.kernels_cpu.encode.tiles import load
from edgeq.kernels_cpu.jit import helper, kernel
from edgeq.kernels_cpu.refine.levels import FLOAT4
from edgeq.kernels_cpu.refine.one_scale import (
    LANES,
    codes_of,
    load_tiles,
    scratch,
    store_nibbles,
    weight_tiles,
)
from edgeq.kernels_cpu.refine.symmetric_search import LOWER, error_of

_LARGEST = 254  # 255 is NaN
_INFINITY = np.float32(np.inf)


@helper
def _error(sixteen, exponents, move, weights, memory):
    """Squared errors with the exponents moved by as much."""
    tiles, scales, _ = memory
    for lane in range(LANES):
        scales[0, lane] = half_power_of_two(min(max(exponents[lane] + move, 0), _LARGEST))
    return error_of(sixteen, tiles[0], weights, FLOAT4, load(sixteen, scales, 0))


@helper
def _search(sixteen, exponents, search, weights, memory, moves):
    """How far to move the exponents: int32 ``moves``; bit i tells that it helps block i."""
    limit = _error(sixteen, exponents, 0, weights, memory) * LOWER
    best, best_move = limit, simd.splat(sixteen, 0)
    for step in range(1, search + 1):
        for sign in range(1, -2, -2):
            trial = _error(sixteen, exponents, sign * step, weights, memory)
            better = trial < best
            best = simd.select(better, trial, best)
            best_move = simd.select(better, sign * step, best_move)
    simd.store(simd.address(moves), best_move)
    return simd.mask_bits((best < limit) & (limit < _INFINITY))


@kernel
def refine_rows(first, last, values, weights, encoded, search, isa):
    """See the package."""
    sixteen = simd.resized(isa, LANES)
    each = weights.size // 32
    blocks = encoded.reshape(-1, 17)
    columns, memory = weight_tiles(isa, sixteen, weights), scratch(sixteen)
    exponents, moves = np.empty(LANES, np.int64), np.empty(LANES, np.int32)
    for row in range(first, last):
        end = (row + 1) * each
        for group in range(columns.shape[0]):
            b, weight = row * each + group * LANES, columns[group]
            load_tiles(isa, sixteen, values, b, end, weight, memory)
            for lane in range(LANES):
                exponents[lane] = blocks[min(b + lane, end - 1), 0]
            better = _search(sixteen, exponents, search, weight, memory, moves)
            for lane in range(min(LANES, end - b)):
                if (better >> lane) & 1:
                    e = min(max(exponents[lane] + moves[lane], 0), _LARGEST)
                    low, high = codes_of(sixteen, FLOAT4, values, b + lane, half_power_of_two(e))
                    blocks[b + lane, 0] = np.uint8(e)
                    store_nibbles(blocks[b + lane], 1, low, high)
