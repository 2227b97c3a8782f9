"""Encoder of Q5_K: twin of ``edgeq.formats.blocks.q5_k``, where the layout is described."""

from __future__ import annotations

import numpy as np

from edgeq.kernels_cpu import simd
from edgeq.kernels_cpu.encode.super_block import encode_batch, encode_weighted_batch, scratch
from edgeq.kernels_cpu.encode.tiles import REGISTERS
from edgeq.kernels_cpu.jit import helper, kernel

TAKES_ISA = True
_NMAX = 31
_SEARCH = (np.float32(-0.5), np.float32(0.1), 15)


@helper
def store_codes(isa, codes, block):
    """uint8 codes ``[256]`` into low nibbles by pairs and fifth bits by sub-block."""
    eight = simd.resized(isa, 8)
    fifths = simd.splat(eight, 0)
    for pair in range(4):
        at = simd.address(codes) + pair * 64
        low, high = simd.load_int32(eight, at), simd.load_int32(eight, at + 32)
        nibbles = (low & 0x0F0F0F0F) | ((high & 0x0F0F0F0F) << 4)
        simd.store(simd.address(block) + 48 + pair * 32, nibbles)
        fifths = (
            fifths
            | (((low >> 4) & 0x01010101) << (2 * pair))
            | (((high >> 4) & 0x01010101) << (2 * pair + 1))
        )
    simd.store(simd.address(block) + 16, fifths)


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
