"""Encoder of Q4_K: twin of ``edgeq.formats.blocks.q4_k``, where the layout is described."""

from __future__ import annotations

import numpy as np

from edgeq.kernels_cpu import simd
from edgeq.kernels_cpu.encode.super_block import encode_batch, scratch
from edgeq.kernels_cpu.encode.tiles import REGISTERS
from edgeq.kernels_cpu.jit import kernel

TAKES_ISA = True
_NMAX = 15
_SEARCH = (np.float32(-1.0), np.float32(0.1), 20)


@kernel
def _store_codes(isa, codes, block):
    """uint8 codes ``[256]`` into the block's nibbles."""
    eight = simd.resized(isa, 8)
    for pair in range(4):
        at = simd.address(codes) + pair * 64
        low, high = simd.load_int32(eight, at), simd.load_int32(eight, at + 32)
        simd.store(simd.address(block) + 16 + pair * 32, low | (high << 4))


@kernel
def encode_blocks(first, last, values, out, isa):
    """Blocks first..last of float32 ``[n, 256]``; False when a scale overflows float16."""
    wide = simd.widened(isa, REGISTERS)
    memory = scratch(wide)
    fine = True
    for b in range(first, last, simd.lanes_of(wide)):
        fine &= encode_batch(isa, wide, values, b, last, _NMAX, _SEARCH, memory, out)
        for lane in range(min(simd.lanes_of(wide), last - b)):
            _store_codes(isa, memory[-1][lane], out[b + lane])
    return fine
