"""Activations in int8, a scale for each block of columns, as ggml quantizes them on the way into a product.

``Q8_K``: 256 columns, float32 scale (source: ``quantize_row_q8_K_ref`` in ``ggml/src/ggml-quants.c``). ``Q8_0``
and ``Q8_1``: 32 columns, scale rounded to float16 (source: ``quantize_row_q8_0`` and ``quantize_row_q8_1`` in
``ggml/src/ggml-cpu/arch/x86/quants.c``, which round ties to even and not as the ``_ref`` functions do).
``blocked``: any block, float32 scale, as ONNX Runtime's MatMulNBits with accuracy level 4.

A block that holds a NaN or an infinity gets a NaN for a scale, and with it every product that it is part of.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgeq.formats.blocks.base import Floats
from edgeq.kernels_cpu import simd, threads
from edgeq.kernels_cpu.half_floats import from_half, to_half
from edgeq.kernels_cpu.isa import Isa
from edgeq.kernels_cpu.jit import helper, kernel
from edgeq.kernels_cpu.memory import put

_NOT_FINITE = 0x7F800000  # bits of infinity; those of NaN are larger
_LEVELS = np.float32(127)
_ZERO = np.float32(0)
_ONE = np.float32(1)


class Quantized(NamedTuple):
    """Rows of activations. ``words`` is what a format's correction multiplies.

    For sub-blocks: int16 sums of ``sub`` columns each, two of them in a word; else for each block the int32 sum
    or, for ``Q8_1``, the float32 ``s`` (scale times sum, rounded to float16).
    """

    codes: NDArray[np.int8]  # [T, K], -127 to 127
    scales: Floats  # [T, K / block]
    words: NDArray[np.int32]  # [T, words]


def quantize(x: Floats, kind: str, block: int, sub: int, rows: int, isa: Isa) -> Quantized:
    """Quantize contiguous float32 ``[T, K]``, K a multiple of block; zero rows are added up to ``rows``.

    ``sub`` is the columns of an int16 sum, or 0. Plain twin: ``tests/kernels_cpu/plain_products.py``.
    """
    t, columns = x.shape
    blocks = columns // block
    words = columns // (2 * sub) if sub else blocks
    codes, scales = np.empty((rows, columns), np.int8), np.empty((rows, blocks), np.float32)
    result = Quantized(codes, scales, np.empty((rows, words), np.int32))
    if rows > t:
        for array in result:
            array[t:] = 0
    signed = kind == "Q8_K"
    halves = kind in ("Q8_0", "Q8_1")
    threads.run(_quantize_rows, t, columns, x, *result, block, sub, signed, halves, kind == "Q8_1", isa)
    return result


@kernel
def _quantize_rows(first, last, x, codes, scales, words, block, sub, signed, halves, with_s, isa):
    """Rows first..last. ``signed``: the scale has the peak's sign; ``halves``: it is rounded to float16."""
    columns, blocks = x.shape[1], scales.shape[1]
    for t in range(first, last):
        at, to = simd.address(x) + 4 * t * columns, simd.address(codes) + t * columns
        scales_at = simd.address(scales) + 4 * t * blocks
        words_at = simd.address(words) + 4 * t * words.shape[1]
        quantize_row(isa, at, to, scales_at, words_at, blocks, block, sub, signed, halves, with_s)


@helper
def quantize_row(isa, at, to, scales, words, blocks, block, sub, signed, halves, with_s):
    """One row of float32 at an address, to the codes, scales and words at three others."""
    for b in range(blocks):
        peak = _peak(isa, at, block, signed)
        if signed:
            inverse = -_LEVELS / peak if peak != _ZERO else _ZERO
            scale = _ONE / inverse if peak != _ZERO else _ZERO
        else:
            inverse = _LEVELS / peak if peak != _ZERO else _ZERO
            scale = peak / _LEVELS
        if not np.isfinite(inverse):  # of a NaN, or of a subnormal peak, whose codes ggml leaves undefined
            inverse = _ZERO
        _round(isa, at, to, block, inverse)
        put(scales, b, _rounded_to_half(isa, scale) if halves else scale)
        if sub:
            for s in range(0, block, sub):
                simd.store_int16(words + (b * block + s) // sub * 2, _sum(isa, to + s, sub))
        elif with_s:
            put(words, b, _rounded_to_half(isa, scale * np.float32(_sum(isa, to, block))))
        else:
            simd.store_int32(words + 4 * b, _sum(isa, to, block))
        at += 4 * block
        to += block


@helper
def _peak(isa, at, n, signed):
    """Largest magnitude of n floats, NaN when one is not finite; ``signed``: the first such value itself."""
    lanes = simd.lanes_of(isa)
    largest = simd.splat(isa, 0)
    for i in range(0, n, lanes):
        largest = simd.maximum(largest, simd.as_int32(abs(simd.load(isa, at + 4 * i))))
    bits = simd.max_of(largest)
    if bits >= _NOT_FINITE:
        return np.float32(np.nan)
    peak = np.int32(bits).view(np.float32)
    if signed:
        for i in range(0, n, lanes):
            x = simd.load(isa, at + 4 * i)
            if simd.any_of(abs(x) == peak):
                for k in range(lanes):
                    if abs(simd.lane(x, k)) == peak:
                        return simd.lane(x, k)
    return peak


@helper
def _round(isa, at, to, n, inverse):
    """x · inverse to int8, ties to even, at most 127; zeros where the inverse is 0, so never of a NaN."""
    for i in range(0, n, simd.lanes_of(isa)):
        codes = simd.splat(isa, 0)
        if inverse != _ZERO:
            codes = simd.minimum(simd.nearest(simd.load(isa, at + 4 * i) * inverse), 127)
        simd.store(to + i, simd.to_uint8(codes))


@helper
def _sum(isa, at, n):
    """Sum of n int8."""
    total = simd.splat(isa, 0)
    for i in range(0, n, simd.lanes_of(isa)):
        total = total + simd.to_int32(simd.load_int8(isa, at + i))
    return simd.sum_of(total)


@helper
def _rounded_to_half(isa, x):
    """float32 to float16 and back."""
    return simd.lane(from_half(isa, to_half(isa, simd.splat(isa, x))), 0)
