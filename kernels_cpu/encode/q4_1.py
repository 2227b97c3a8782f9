"""Encoder of Q4_1: twin of ``edgeq.formats.blocks.q4_1``, where the layout is described."""

from __future__ import annotations

from edgeq.kernels_cpu import simd
from edgeq.kernels_cpu.encode.lane_weights import row_mean_squares
from edgeq.kernels_cpu.encode.peak_block import store_half
from edgeq.kernels_cpu.encode.range_block import round_by_range, scratch, search_blocks, searched_codes
from edgeq.kernels_cpu.encode.tiles import REGISTERS
from edgeq.kernels_cpu.jit import helper, kernel

TAKES_ISA = True
_NMAX = 15


@helper
def _store(sixteen, at, d, least, low, high):
    """The block at an address; low and high are the codes of its halves."""
    simd.store(at + 4, simd.to_uint8(low | (high << 4)))
    fine = store_half(sixteen, at, d)
    return fine & store_half(sixteen, at + 2, least)


@kernel
def encode_blocks(first, last, values, out, isa):
    """Blocks first..last of float32 ``[n, 32]``; False when a scale overflows float16."""
    sixteen = simd.resized(isa, 16)
    target = simd.address(out)
    fine = True
    for b in range(first, last):
        d, least, low, high = round_by_range(sixteen, values[b], _NMAX)
        fine &= _store(sixteen, target + out.shape[1] * b, d, least, low, high)
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
        search_blocks(isa, wide, values, importance, squares, first, b, last * each, _NMAX, tiles, found)
        for lane in range(min(simd.lanes_of(wide), last * each - b)):
            at = simd.address(values) + 128 * (b + lane)
            low, high = searched_codes(sixteen, at, found[2, lane], found[3, lane], _NMAX)
            target = simd.address(out) + size * (b + lane)
            fine &= _store(sixteen, target, found[0, lane], -found[1, lane], low, high)
    return fine
