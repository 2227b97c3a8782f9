"""Steps of products with float weights, rows as a file has them: F32, F16, BF16. Sums are float32, in any order.

Words of all: address of the weights, columns, rows, x, its row bytes, out, its row bytes, what the product is added to
(0 is nothing) and its row bytes (0 for a bias), and an address: of the state, or of the table of ``steps.experts``, and
for experts their number.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba.extending import overload

from edgeq.kernels_cpu import simd
from edgeq.kernels_cpu.float_math import muladd
from edgeq.kernels_cpu.half_floats import from_half
from edgeq.kernels_cpu.isa import Isa
from edgeq.kernels_cpu.jit import helper, step
from edgeq.kernels_cpu.memory import get, put, word
from edgeq.kernels_cpu.opaque import isa_of, known_by_type
from edgeq.kernels_cpu.steps import STATE_ROWS

GROUP = 16  # rows of weights that are an item of many rows
SEGMENT = 512  # columns of them that are made float32 at a time, to stay in the nearest cache
SCRATCH = 4 * GROUP * SEGMENT + 64
_ZERO = np.float32(0)


@known_by_type
class FloatWeights(NamedTuple):
    """A type of weights (F32, F16, BF16) and an instruction set."""

    name: str
    isa: Isa


def weight(weights, isa, at, i):
    """Weights from number i of a row on, as many as a vector of the isa has, float32."""


@overload(weight)
def _weight(weights, isa, at, i):
    if weights.kind == "F32":
        return lambda weights, isa, at, i: simd.load(isa, at + 4 * i)
    if weights.kind == "F16":
        return lambda weights, isa, at, i: from_half(isa, simd.to_int32(simd.load_int16(isa, at + 2 * i)))
    return lambda weights, isa, at, i: simd.as_float(simd.to_int32(simd.load_int16(isa, at + 2 * i)) << 16)


def size_of(weights):
    """Bytes of a weight."""


@overload(size_of)
def _size_of(weights):
    size = 4 if weights.kind == "F32" else 2
    return lambda weights: size


@step
def product_of_row(first, last, at, scratch, weights):
    """One row × weight rows first..last."""
    _row_times(weights, at, word(at, 0), 0, first, last)


@step
def product_of_rows(first, last, at, scratch, weights):
    """The state's rows × groups first..last of ``GROUP`` weight rows; one row more may be written."""
    rows = word(word(at, 9), STATE_ROWS)
    for group in range(first, last):
        _rows_times_group(weights, at, scratch, word(at, 0), group * GROUP, 0, rows)


@step
def expert_of_row(first, last, at, scratch, weights):
    """Rows first..last, each × all weight rows of its expert."""
    size = word(at, 1) * word(at, 2) * size_of(weights)
    for row in range(first, last):
        expert = word(word(at, 9), word(at, 10) + 1 + 2 * row + 1)
        _row_times(weights, at, word(at, 0) + expert * size, row, 0, word(at, 2))


@step
def expert_of_rows(first, last, at, scratch, weights):
    """The rows of each expert × groups of its weight rows: items are numbered through the experts."""
    groups = (word(at, 2) + GROUP - 1) // GROUP
    size = word(at, 1) * word(at, 2) * size_of(weights)
    for item in range(first, last):
        expert = item // groups
        begin, end = word(word(at, 9), expert), word(word(at, 9), expert + 1)
        if begin < end:
            own = word(at, 0) + expert * size
            _rows_times_group(weights, at, scratch, own, item % groups * GROUP, begin, end)


@helper
def _row_times(weights, at, own, row, first, last):
    """A row × weight rows first..last of those at an address."""
    columns, base = word(at, 1), word(at, 7)
    x, out = word(at, 3) + row * word(at, 4), word(at, 5) + row * word(at, 6)
    start = base + row * word(at, 8)
    for n in range(first, last):
        total = _dot(weights, own + n * columns * size_of(weights), x, columns)
        put(out, n, total + get(start, n) if base else total)


@helper
def _rows_times_group(weights, at, scratch, own, first, begin, end):
    """Rows begin..end × up to ``GROUP`` weight rows from the first, of those at an address."""
    columns, base, stride = word(at, 1), word(at, 7), word(at, 6)
    size, count = size_of(weights), min(GROUP, word(at, 2) - first)
    panel = (scratch + 63) & -64
    for segment in range(0, columns, SEGMENT):
        width = min(SEGMENT, columns - segment)
        for n in range(count):
            row = own + ((first + n) * columns + segment) * size
            _decode(weights, row, width, panel + 4 * n * SEGMENT)
        for t in range(begin, end, 2):
            x = word(at, 3) + t * word(at, 4) + 4 * segment
            out = word(at, 5) + t * stride + 4 * first
            if segment == 0:
                start = base + t * word(at, 8) + 4 * first
                for n in range(count):
                    put(out, n, get(start, n) if base else _ZERO)
                    put(out + stride, n, get(start + word(at, 8), n) if base else _ZERO)
            _add_dots(isa_of(weights), x, x + word(at, 4), panel, width, count, out, out + stride)


@helper
def _dot(weights, row, x, columns):
    isa, one = isa_of(weights), simd.resized(isa_of(weights), 1)
    lanes = simd.lanes_of(isa)
    a, b = simd.splat(isa, _ZERO), simd.splat(isa, _ZERO)
    c, d = simd.splat(isa, _ZERO), simd.splat(isa, _ZERO)
    whole = columns - columns % (4 * lanes)
    for i in range(0, whole, 4 * lanes):
        a = muladd(isa, weight(weights, isa, row, i), simd.load(isa, x + 4 * i), a)
        j = i + lanes
        b = muladd(isa, weight(weights, isa, row, j), simd.load(isa, x + 4 * j), b)
        j = i + 2 * lanes
        c = muladd(isa, weight(weights, isa, row, j), simd.load(isa, x + 4 * j), c)
        j = i + 3 * lanes
        d = muladd(isa, weight(weights, isa, row, j), simd.load(isa, x + 4 * j), d)
    total = simd.sum_of((a + b) + (c + d))
    for i in range(whole, columns):
        total += simd.lane(weight(weights, one, row, i), 0) * get(x, i)
    return total


@helper
def _decode(weights, row, width, to):
    """A part of a row to float32."""
    isa, one = isa_of(weights), simd.resized(isa_of(weights), 1)
    lanes = simd.lanes_of(isa)
    whole = width - width % lanes
    for i in range(0, whole, lanes):
        simd.store(to + 4 * i, weight(weights, isa, row, i))
    for i in range(whole, width):
        put(to, i, simd.lane(weight(weights, one, row, i), 0))


@helper
def _add_dots(isa, x, y, panel, width, count, out, out_y):
    """Add the products of two rows, x and y, with the rows of a panel, four at a time."""
    lanes = simd.lanes_of(isa)
    whole = width - width % lanes
    for n in range(0, count, 4):  # of rows that are too many, nothing is stored
        row = panel + 4 * n * SEGMENT
        a, b = simd.splat(isa, _ZERO), simd.splat(isa, _ZERO)
        c, d = simd.splat(isa, _ZERO), simd.splat(isa, _ZERO)
        e, f = simd.splat(isa, _ZERO), simd.splat(isa, _ZERO)
        g, h = simd.splat(isa, _ZERO), simd.splat(isa, _ZERO)
        for i in range(0, 4 * whole, 4 * lanes):
            one, two = simd.load(isa, row + i), simd.load(isa, row + 4 * SEGMENT + i)
            three, four = simd.load(isa, row + 8 * SEGMENT + i), simd.load(isa, row + 12 * SEGMENT + i)
            v, w = simd.load(isa, x + i), simd.load(isa, y + i)
            a, e = muladd(isa, one, v, a), muladd(isa, one, w, e)
            b, f = muladd(isa, two, v, b), muladd(isa, two, w, f)
            c, g = muladd(isa, three, v, c), muladd(isa, three, w, g)
            d, h = muladd(isa, four, v, d), muladd(isa, four, w, h)
        sums = (simd.sum_of(a), simd.sum_of(b), simd.sum_of(c), simd.sum_of(d))
        sums_y = (simd.sum_of(e), simd.sum_of(f), simd.sum_of(g), simd.sum_of(h))
        for k in range(min(4, count - n)):
            left, right = sums[k], sums_y[k]
            for i in range(whole, width):
                value = get(row + 4 * k * SEGMENT, i)
                left, right = left + value * get(x, i), right + value * get(y, i)
            put(out, n + k, get(out, n + k) + left)
            put(out_y, n + k, get(out_y, n + k) + right)
