"""Refiner of TQ1_0: twin of ``edgeq.formats.blocks.refine.tq1_0``."""

from __future__ import annotations

from edgeq.kernels_cpu import simd
from edgeq.kernels_cpu.encode.tq1_0 import store_codes
from edgeq.kernels_cpu.jit import kernel
from edgeq.kernels_cpu.refine.super_scales import scratch, weight_tiles
from edgeq.kernels_cpu.refine.ternary import search_block


@kernel
def refine_rows(first, last, values, weights, encoded, search, isa):
    """See the package."""
    each = weights.size // 256
    blocks = encoded.reshape(-1, 54)
    sixteen = simd.resized(isa, 16)
    columns, memory = weight_tiles(isa, sixteen, weights), scratch(sixteen)
    for b in range(first * each, last * each):
        if search_block(isa, values, b, columns[b % each], blocks[b], 52, search, memory):
            store_codes(memory[2], blocks[b])
