"""Refiner of Q4_0: twin of ``edgeq.formats.blocks.refine.q4_0``."""

from __future__ import annotations

from edgeq.kernels_cpu import simd
from edgeq.kernels_cpu.jit import kernel
from edgeq.kernels_cpu.refine.levels import uniform
from edgeq.kernels_cpu.refine.one_scale import (
    LANES,
    codes_of,
    scratch,
    search_group,
    store_nibbles,
    weight_tiles,
)
from edgeq.kernels_cpu.scalar import store_half

_LEVELS = uniform(-8, 7, -8)


@kernel
def refine_rows(first, last, values, weights, encoded, search, isa):
    """See the package."""
    sixteen = simd.resized(isa, LANES)
    each = weights.size // 32
    blocks = encoded.reshape(-1, 18)
    columns, memory = weight_tiles(isa, sixteen, weights), scratch(sixteen)
    for row in range(first, last):
        end = (row + 1) * each
        for group in range(columns.shape[0]):
            b, weight = row * each + group * LANES, columns[group]
            better = search_group(isa, sixteen, values, blocks, b, end, weight, _LEVELS, search, memory)
            for lane in range(min(LANES, end - b)):
                if (better >> lane) & 1:
                    d = memory[1][0, lane]
                    low, high = codes_of(sixteen, _LEVELS, values, b + lane, d)
                    store_nibbles(blocks[b + lane], 2, low, high)
                    store_half(blocks[b + lane], 0, d)
