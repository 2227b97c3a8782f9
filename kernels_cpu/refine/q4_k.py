"""Refiner of Q4_K: twin of ``edgeq.formats.blocks.refine.q4_k``."""

from __future__ import annotations

from edgeq.formats.blocks.refine.q4_k import NMAX
from edgeq.kernels_cpu import simd
from edgeq.kernels_cpu.encode.q4_k import store_codes
from edgeq.kernels_cpu.encode.tiles import REGISTERS
from edgeq.kernels_cpu.jit import kernel
from edgeq.kernels_cpu.refine.affine_super_block import load_values, refine_batch, round_codes, scratch
from edgeq.kernels_cpu.refine.six_bit_scales import SUB_BLOCKS, TOP, load_scales, store_scales


@kernel
def refine_rows(first, last, values, importance, encoded, search, isa):
    """Rows first..last of float32 ``[rows, columns]`` under importance ``[columns]``."""
    wide = simd.widened(isa, REGISTERS)
    memory = scratch(wide, SUB_BLOCKS)
    best, codes = memory[6], memory[8]
    each = importance.size // 256
    flat, blocks, end = values.reshape(-1, 256), encoded.reshape(-1, encoded.shape[1] // each), last * each
    for b in range(first * each, end, simd.lanes_of(wide)):
        load_values(isa, flat, importance, b, end, memory[0], memory[1])
        load_scales(blocks, b, end, best)
        improved = refine_batch(wide, NMAX, TOP, search, memory)
        for lane in range(min(simd.lanes_of(wide), end - b)):
            if (improved >> lane) & 1:
                store_scales(blocks[b + lane], lane, best)
                round_codes(isa, flat, b + lane, lane, NMAX, best, codes)
                store_codes(isa, codes, blocks[b + lane])
