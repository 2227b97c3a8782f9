"""What the refiners of TQ1_0 and TQ2_0 share: 256 values with one scale, their sums in sixteen parts."""

from __future__ import annotations

from edgeq.kernels_cpu import simd
from edgeq.kernels_cpu.jit import helper
from edgeq.kernels_cpu.refine.levels import uniform
from edgeq.kernels_cpu.refine.super_scales import load_tiles, round_values
from edgeq.kernels_cpu.refine.symmetric_search import search_scale
from edgeq.kernels_cpu.scalar import load_half, store_half

_LEVELS = uniform(-1, 1, -1)


@helper
def search_block(isa, values, b, weight, block, at, search, memory):
    """Look for a better d of block b, which stands at byte ``at``; if found, d is stored and codes are made."""
    sixteen = simd.resized(isa, 16)
    tiles = memory[0]
    load_tiles(isa, sixteen, values, b, weight, memory)
    d = simd.splat(sixteen, load_half(block, at))
    better, found = search_scale(sixteen, tiles[0], weight, tiles[1], _LEVELS, d, search, True)
    if not simd.any_of(better):
        return False
    round_values(sixteen, _LEVELS, values, b, found, memory)
    store_half(block, at, simd.lane(found, 0))
    return True
