"""Activations put where tiles of many rows take them from: all that a tile reads follows one address."""

from __future__ import annotations

from edgeq.kernels_cpu import simd
from edgeq.kernels_cpu.jit import helper
from edgeq.kernels_cpu.memory import get, put
from edgeq.kernels_cpu.products.tiles import ROWS


@helper
def arrange_row(
    size, t, blocks, columns, words, codes_at, scales_at, words_at, codes_to, scales_to, words_to
):
    """Row t of quantized activations: each of its blocks comes behind that of the row before, ``ROWS`` to a tile.

    The addresses are those of all rows: codes, scales and words (so many to a block), as they are and as they shall
    be. Codes of ``size`` 2 (``operand_bytes``) become int16, of each four 0, 2, 1, 3.
    """
    for b in range(blocks):
        at, to = t * blocks + b, (t // ROWS * blocks + b) * ROWS + t % ROWS
        _operands(size, columns, codes_at + at * columns, codes_to + to * columns * size)
        put(scales_to, to, get(scales_at, at))
        for i in range(words):
            simd.store_int32(words_to + 4 * (to * words + i), simd.load_word(words_at + 4 * (at * words + i)))


@helper
def _operands(size, columns, at, to):
    """Copy int8, or widen them to int16."""
    if size == 1:
        for i in range(0, columns, 4):
            simd.store_int32(to + i, simd.load_word(at + i))
        return
    for i in range(0, columns, 4):
        four = simd.load_word(at + i)
        first, second = four << 56 >> 56, four << 48 >> 56
        third, fourth = four << 40 >> 56, four << 32 >> 56
        simd.store_int32(to + 2 * i, first & 0xFFFF | third << 16)
        simd.store_int32(to + 2 * i + 4, second & 0xFFFF | fourth << 16)
