"""Encoder of Q5_0: twin of ``edgeq.formats.blocks.q5_0``, where the layout is described."""

from __future__ import annotations

from edgeq.kernels_cpu import simd
from edgeq.kernels_cpu.encode.lane_weights import row_mean_squares
from edgeq.kernels_cpu.encode.peak_block import (
    round_by_peak,
    scratch,
    search_blocks,
    searched_codes,
    store_half,
)
from edgeq.kernels_cpu.encode.tiles import REGISTERS
from edgeq.kernels_cpu.jit import helper, kernel

TAKES_ISA = True
_ZERO_CODE = 16


@helper
def _store(sixteen, at, d, low, high):
    """The block at an address; low and high are the codes of its halves."""
    simd.store_int32(at + 2, simd.mask_bits(low > 15) | (simd.mask_bits(high > 15) << 16))
    simd.store(at + 6, simd.to_uint8((low & 15) | ((high & 15) << 4)))
    return store_half(sixteen, at, d)


@kernel
def encode_blocks(first, last, values, out, isa):
    """Blocks first..last of float32 ``[n, 32]``; False when a scale overflows float16."""
    sixteen = simd.resized(isa, 16)
    source, target = simd.address(values), simd.address(out)
    fine = True
    for b in range(first, last):
        d, low, high = round_by_peak(sixteen, source + 128 * b, _ZERO_CODE)
        fine &= _store(sixteen, target + out.shape[1] * b, d, low, high)
    return fine


@kernel
def encode_rows(first, last, values, importance, out, isa):
    """Rows first..last of float32 ``[rows, columns]`` under importance ``[columns]``."""
    wide, sixteen = simd.widened(isa, REGISTERS), simd.resized(isa, 16)
    tiles, found, squares = scratch(wide, last - first)
    row_mean_squares(isa, wide, values, first, last, tiles[0], squares)
    each = importance.size // 32
    size = out.shape[1] // each
    fine = True
    for b in range(first * each, last * each, simd.lanes_of(wide)):
        search_blocks(isa, wide, values, importance, squares, first, b, last * each, _ZERO_CODE, tiles, found)
        for lane in range(min(simd.lanes_of(wide), last * each - b)):
            at = simd.address(values) + 128 * (b + lane)
            low, high = searched_codes(sixteen, at, found[1, lane], _ZERO_CODE)
            fine &= _store(sixteen, simd.address(out) + size * (b + lane), found[0, lane], low, high)
    return fine
