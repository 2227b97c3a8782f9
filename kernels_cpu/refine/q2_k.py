"""Refiner of Q2_K: twin of ``edgeq.formats.blocks.refine.q2_k``."""

from __future__ import annotations

import numpy as np

from edgeq.formats.blocks.refine.q2_k import NMAX, SUB_BLOCKS, TOP
from edgeq.kernels_cpu import simd
from edgeq.kernels_cpu.encode.rounding import store_two_bits
from edgeq.kernels_cpu.encode.tiles import REGISTERS
from edgeq.kernels_cpu.jit import helper, kernel
from edgeq.kernels_cpu.refine.affine_super_block import (
    DMIN,
    SCALES,
    D,
    load_values,
    refine_batch,
    round_codes,
    scratch,
)
from edgeq.kernels_cpu.scalar import load_half, store_half

_MINS = SCALES + SUB_BLOCKS


@helper
def _load_scales(blocks, first, last, stored):
    """Block first + lane into each lane of ``stored``; lanes beyond ``last`` repeat the last block."""
    for lane in range(stored.shape[1]):
        block = blocks[min(first + lane, last - 1)]
        stored[D, lane], stored[DMIN, lane] = load_half(block, 80), load_half(block, 82)
        for j in range(SUB_BLOCKS):
            stored[SCALES + j, lane] = np.float32(block[j] & 15)
            stored[_MINS + j, lane] = np.float32(block[j] >> 4)


@helper
def _store_scales(block, lane, stored):
    store_half(block, 80, stored[D, lane])
    store_half(block, 82, stored[DMIN, lane])
    for j in range(SUB_BLOCKS):
        block[j] = np.uint8(np.int64(stored[SCALES + j, lane]) | (np.int64(stored[_MINS + j, lane]) << 4))


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
        _load_scales(blocks, b, end, best)
        improved = refine_batch(wide, NMAX, TOP, search, memory)
        for lane in range(min(simd.lanes_of(wide), end - b)):
            if (improved >> lane) & 1:
                _store_scales(blocks[b + lane], lane, best)
                round_codes(isa, flat, b + lane, lane, NMAX, best, codes)
                store_two_bits(codes, blocks[b + lane], 16)
