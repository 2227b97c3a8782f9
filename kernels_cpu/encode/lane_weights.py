"""Weights of the values under importance, with one block per lane: importance · √(mean square + x²)."""

from __future__ import annotations

import numpy as np

from edgeq.kernels_cpu import simd
from edgeq.kernels_cpu.encode.tiles import block_addresses, load, load_tile, store
from edgeq.kernels_cpu.jit import helper
from edgeq.kernels_cpu.scalar import ZERO


@helper
def importance_weights(wide, x, square, weights):
    """Turn the tile ``weights`` from importance into weights of the tile x; returns their sum."""
    total = simd.splat(wide, ZERO)
    for i in range(x.shape[0]):
        value = load(wide, x, i)
        weight = load(wide, weights, i) * simd.sqrt(square + value * value)
        store(wide, weights, i, weight)
        total += weight
    return total


@helper
def sum_of_squares(isa, wide, addresses, size, tile):
    """Σ x² of the ``size`` values at each lane's address, in their order; ``tile`` is scratch."""
    total = simd.splat(wide, ZERO)
    for start in range(0, size, tile.shape[0]):
        load_tile(isa, addresses, start, tile)
        for i in range(tile.shape[0]):
            total += load(wide, tile, i) * load(wide, tile, i)
    return total


@helper
def row_mean_squares(isa, wide, values, first, last, tile, result):
    """Mean square of rows first..last, each in its own order: a lane per row."""
    columns = values.shape[1]
    addresses = np.empty(simd.lanes_of(wide), np.int64)
    for row in range(first, last, simd.lanes_of(wide)):
        block_addresses(values, row, last, columns, last, addresses)
        total = sum_of_squares(isa, wide, addresses, columns, tile) / np.float32(columns)
        for lane in range(min(simd.lanes_of(wide), last - row)):
            result[row - first + lane] = simd.lane(total, lane)


@helper
def load_row_weights(isa, wide, values, importance, squares, first, b, last, x, weights):
    """Blocks b.. of 32 values and their weights into two tiles; ``squares`` is of rows first.. of the blocks."""
    lanes, each = simd.lanes_of(wide), importance.size // 32
    addresses, importances = np.empty(lanes, np.int64), np.empty(lanes, np.int64)
    block_addresses(values, b, last, 32, last, addresses)
    block_addresses(importance, b, last, 32, each, importances)
    of_lanes = np.empty((1, lanes), np.float32)
    for lane in range(lanes):
        of_lanes[0, lane] = squares[min(b + lane, last - 1) // each - first]
    load_tile(isa, addresses, 0, x)
    load_tile(isa, importances, 0, weights)
    importance_weights(wide, x, load(wide, of_lanes, 0), weights)
