"""Tiles: one block (or sub-block) per lane. What the SIMD encoders read their values from.

A tile of ``n`` values is n vectors, vector i holding value i of as many blocks as there are lanes, so a step
over the vectors does one step of ggml's loop for all of them, in ggml's order.
"""

from __future__ import annotations

import numpy as np

from edgeq.kernels_cpu import simd
from edgeq.kernels_cpu.jit import helper

# Registers per vector in the searches: two chains of sums hide each other's latency.
REGISTERS = 2


@helper
def vectors(wide, n):
    """Uninitialised float32 scratch ``[n, lanes]``, aligned to a cache line."""
    lanes = simd.lanes_of(wide)
    memory = np.empty(n * lanes + 16, np.float32)
    skip = (-simd.address(memory) & 63) >> 2
    return memory[skip : skip + n * lanes].reshape(n, lanes)


@helper
def block_addresses(values, first, last, stride, wrap, addresses):
    """Address of float32 block first + lane for each lane; lanes beyond ``last`` repeat the last block.

    ``stride`` floats apart; block numbers wrap at ``wrap`` (importance is shared by all rows).
    """
    base = simd.address(values)
    for i in range(addresses.size):
        addresses[i] = base + 4 * stride * (min(first + i, last - 1) % wrap)


@helper
def load_tile(isa, addresses, offset, tile):
    """tile[i, lane] = value offset + i of the block at addresses[lane]."""
    n = simd.lanes_of(isa)
    count, lanes = tile.shape
    pointers, out = simd.address(addresses), simd.address(tile)
    for lane in range(0, lanes, n):
        for i in range(0, count, n):
            at = out + 4 * (i * lanes + lane)
            simd.transpose(isa, pointers + 8 * lane, 4 * (offset + i), at, 4 * lanes)


@helper
def load_super_tile(isa, addresses, offset, tile):
    """The same for super-blocks of 256 values that follow one another; fetches the next batch's lines."""
    load_tile(isa, addresses, offset, tile)
    lanes = tile.shape[1]
    for i in range(0, tile.shape[0], 16):
        for lane in range(lanes):
            simd.prefetch(addresses[lane] + 4 * (offset + i) + 1024 * lanes)


@helper
def load(wide, tile, i):
    """Vector i of a tile (float32)."""
    return simd.load(wide, simd.address(tile) + 4 * simd.lanes_of(wide) * i)


@helper
def load_int32(wide, tile, i):
    """Vector i of a tile (int32)."""
    return simd.load_int32(wide, simd.address(tile) + 4 * simd.lanes_of(wide) * i)


@helper
def store(wide, tile, i, vector):
    """Set vector i of a tile."""
    simd.store(simd.address(tile) + 4 * simd.lanes_of(wide) * i, vector)
