"""Moves codes from encoded blocks into packed panels: one kernel for all types and instruction sets.

What is to be done to a block is a table, made from two descriptions: where the codes lie (``Stored``) and where
they shall lie (``Layout``). The kernel works on words, which hold 4 columns of a row on either side.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgeq.formats.blocks.base import Bytes
from edgeq.kernels_cpu import simd
from edgeq.kernels_cpu.jit import helper, kernel
from edgeq.kernels_cpu.products.fields import Stored
from edgeq.kernels_cpu.products.layout import REGISTERS, Layout
from edgeq.kernels_cpu.views import read_only

_EVERY_BYTE = 0x01010101


class _Term(NamedTuple):
    """Bits of a packed word: those of the mask, of the encoded word at that byte, moved down by ``shift``."""

    at: int
    shift: int  # -31 to 31
    mask: int


class _Plan(NamedTuple):
    words: NDArray[np.int32]  # [words of a packed row, 3]: byte of the block, first and last term
    terms: NDArray[np.int32]  # [terms, 3]
    levels: Bytes  # [16], what a code is replaced by; or [0]
    register_bytes: int  # from the first register of rows to the second


def write_codes(layout: Layout, stored: Stored, blocks: Bytes, out: Bytes) -> None:
    """Fill the codes of out, uint8 ``[panels, blocks, layout.block_bytes]``, and nothing else of it.

    ``blocks`` are uint8 ``[panels · rows · blocks, bytes]``, in the order of the rows. Plain
    twin: ``tests/kernels_cpu/plain_products.py``.
    """
    plan = _plan(layout, stored, blocks.shape[1])
    flip = stored.flip * _EVERY_BYTE
    _write_codes(0, len(out), layout.lanes, *plan, flip, read_only(blocks), out)


@functools.cache
def _plan(layout: Layout, stored: Stored, block_bytes: int) -> _Plan:
    words: list[tuple[int, int, int]] = []
    terms: list[_Term] = []
    for at, found in _words(layout, stored, block_bytes):
        words.append((at, len(terms), len(terms) + len(found)))
        terms += found
    levels = layout.unsigned_levels if not layout.looks_up else []
    return _Plan(
        np.array(words, np.int32).reshape(-1, 3),
        np.array(terms, np.int64).astype(np.int32).reshape(-1, 3),
        np.array(levels, np.uint8),
        layout.step_registers * layout.register,
    )


def _words(layout: Layout, stored: Stored, block_bytes: int) -> Iterator[tuple[int, list[_Term]]]:
    """The words of the first row of a panel: where each lies in its block, and what it is put together from."""
    for first in range(0, layout.format.block, layout.step):
        unit, within = divmod(first, layout.unit)
        register = within // layout.step * REGISTERS * layout.step_registers
        low = 0
        for bits in layout.planes:
            held = 8 // bits  # groups of 4 columns in a word
            for group in range(0, layout.step // 4, held):
                terms = [
                    term
                    for i in range(held)
                    for k in range(4)
                    for term in _terms(stored, first + 4 * (group + i) + k, k, bits * i, low, bits)
                ]
                at = unit * layout.unit_bytes + register * layout.register
                yield at, _merged(terms, block_bytes)
                register += 1
            low += bits


def _terms(stored: Stored, column: int, k: int, to: int, low: int, bits: int) -> Iterator[_Term]:
    """Bits low..low + bits of a column's code, moved to bit ``to`` of byte k of a word; from each plane."""
    start = 0  # of the plane's bits in the code
    for at, stored_bits, run in stored.planes:
        first, last = max(low, start), min(low + bits, start + stored_bits)
        if first < last:
            many, rest = divmod(column, run * 8 // stored_bits)
            byte = at + many * run + rest % run
            shift = stored_bits * (rest // run) + first - start - (to + first - low)
            yield _Term(byte - k, shift, ((1 << (last - first)) - 1) << (8 * k + to + first - low))
        start += stored_bits


def _merged(terms: list[_Term], block_bytes: int) -> list[_Term]:
    """Terms of the same word and shift as one, and all words within the block."""
    masks: dict[tuple[int, int], int] = {}
    for at, shift, mask in terms:
        masks[at, shift] = masks.get((at, shift), 0) | mask
    inside = []
    for (at, shift), mask in masks.items():
        moved = min(max(at, 0), block_bytes - 4)
        inside.append(_Term(moved, shift + 8 * (at - moved), mask))
    return inside


@kernel
def _write_codes(first, last, lanes, words, terms, levels, register_bytes, flip, blocks, out):
    """Panels first..last, two registers of ``lanes`` rows each; a multiple of four, which share each term."""
    per_row, block_bytes = out.shape[1], out.shape[2]
    stride = per_row * blocks.shape[1]
    words_at, terms_at = simd.address(words), simd.address(terms)
    for row in range(first * REGISTERS * lanes, last * REGISTERS * lanes, 4):
        panel, within = row // (REGISTERS * lanes), row % (REGISTERS * lanes)
        source = simd.address(blocks) + row * stride
        to = simd.address(out) + panel * per_row * block_bytes
        to += within // lanes * register_bytes + within % lanes * 4
        for _ in range(per_row):
            for entry in range(words_at, words_at + 12 * words.shape[0], 12):
                a = b = c = d = flip
                for t in range(simd.load_word(entry + 4), simd.load_word(entry + 8)):
                    term = terms_at + 12 * t
                    at, shift = source + simd.load_word(term), 32 + simd.load_word(term + 4)
                    mask = simd.load_word(term + 8)
                    a ^= (simd.load_word(at) << 32 >> shift) & mask
                    b ^= (simd.load_word(at + stride) << 32 >> shift) & mask
                    c ^= (simd.load_word(at + 2 * stride) << 32 >> shift) & mask
                    d ^= (simd.load_word(at + 3 * stride) << 32 >> shift) & mask
                if levels.size:
                    a, b, c, d = (
                        _looked_up(levels, a),
                        _looked_up(levels, b),
                        _looked_up(levels, c),
                        _looked_up(levels, d),
                    )
                at = to + simd.load_word(entry)
                simd.store_int32(at, a)
                simd.store_int32(at + 4, b)
                simd.store_int32(at + 8, c)
                simd.store_int32(at + 12, d)
            source += blocks.shape[1]
            to += block_bytes


@helper
def _looked_up(levels, word):
    """The word's four bytes, each replaced by the level of that number."""
    return (
        np.int64(levels[word & 15])
        | np.int64(levels[word >> 8 & 15]) << 8
        | np.int64(levels[word >> 16 & 15]) << 16
        | np.int64(levels[word >> 24 & 15]) << 24
    )
