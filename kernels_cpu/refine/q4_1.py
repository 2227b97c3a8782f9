"""Refiner of Q4_1: twin of ``edgeq.formats.blocks.refine.q4_1``."""

from __future__ import annotations

from edgeq.formats.blocks.refine.q4_1 import NMAX
from edgeq.kernels_cpu import simd
from edgeq.kernels_cpu.encode.rounding import store_nibbles
from edgeq.kernels_cpu.encode.tiles import REGISTERS
from edgeq.kernels_cpu.jit import kernel
from edgeq.kernels_cpu.refine.affine_block import (
    load_scales,
    load_values,
    refine_batch,
    round_codes,
    scratch,
    store_scales,
)


@kernel
def refine_rows(first, last, values, importance, encoded, search, isa):
    """Rows first..last of float32 ``[rows, columns]`` under importance ``[columns]``."""
    wide = simd.widened(isa, REGISTERS)
    memory = scratch(wide)
    best, codes = memory[5], memory[6]
    each = importance.size // 32
    flat, blocks, end = values.reshape(-1, 32), encoded.reshape(-1, encoded.shape[1] // each), last * each
    for b in range(first * each, end, simd.lanes_of(wide)):
        load_values(isa, flat, importance, b, end, memory[0], memory[1])
        load_scales(blocks, b, end, best)
        improved = refine_batch(wide, NMAX, search, memory)
        for lane in range(min(simd.lanes_of(wide), end - b)):
            if (improved >> lane) & 1:
                store_scales(blocks[b + lane], lane, best)
                round_codes(isa, flat, b + lane, lane, NMAX, best, codes)
                store_nibbles(codes, blocks[b + lane], 4)
