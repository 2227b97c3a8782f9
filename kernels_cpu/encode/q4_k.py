"""Encoder of Q4_K: twin of ``edgeq.formats.blocks.q4_k``, where the layout is described."""

from __future__ import annotations

import numpy as np

from edgeq.kernels_cpu import simd
from edgeq.kernels_cpu.encode.super_block import encode_batch, encode_weighted_batch, scratch
from edgeq.kernels_cpu.encode.tiles import REGISTERS
from edgeq.kernels_cpu.jit import helper, kernel

TAKES_ISA = True
_NMAX = 15
_SEARCH = (np.float32(-1.0), np.float32(0.1), 20)


@helper
def store_codes(isa, codes, block):
    """uint8 codes ``[256]`` into the block's nibbles."""
    eight = simd.resized(isa, 8)
    for pair in range(4):
        at = simd.address(codes) + pair * 64
        low, high = simd.load_int32(eight, at), simd.load_int32(eight, at + 32)
        simd.store(simd.address(block) + 16 + pair * 32, low | (high << 4))


@helper
def _store_batch(isa, first, last, codes, out):
    for lane in range(min(len(codes), last - first)):
        store_codes(isa, codes[lane], out[first + lane])


@kernel
def encode_blocks(first, last, values, out, isa):
    """Blocks first..last of float32 ``[n, 256]``; False when a scale overflows float16."""
    wide = simd.widened(isa, REGISTERS)
    memory = scratch(wide)
    fine = True
    for b in range(first, last, simd.lanes_of(wide)):
        fine &= encode_batch(isa, wide, values, b, last, _NMAX, _SEARCH, memory, out)
        _store_batch(isa, b, last, memory[-1], out)
    return fine


@kernel
def encode_rows(first, last, values, importance, out, isa):
    """Rows first..last of float32 ``[rows, columns]`` under importance ``[columns]``."""
    wide = simd.widened(isa, REGISTERS)
    memory = scratch(wide)
    each = importance.size // 256
    flat, blocks = values.reshape(-1, 256), out.reshape(-1, out.shape[1] // each)
    fine = True
    for b in range(first * each, last * each, simd.lanes_of(wide)):
        fine &= encode_weighted_batch(isa, wide, flat, importance, b, last * each, _NMAX, memory, blocks)
        _store_batch(isa, b, last * each, memory[-1], blocks)
    return fine
