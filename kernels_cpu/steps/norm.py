"""Steps that normalise rows, or each head of a row."""

from __future__ import annotations

import numpy as np

from edgeq.kernels_cpu import simd
from edgeq.kernels_cpu.float_math import muladd
from edgeq.kernels_cpu.jit import helper, step
from edgeq.kernels_cpu.memory import get, put, real, word

_ZERO, _ONE = np.float32(0), np.float32(1)


@step
def normalise(first, last, at, scratch, isa):
    """(x − mean) / root mean square · weight + bias, the mean where it is asked for.

    Words: x, out, their row bytes, heads, width of a head, weight, bias (0 is none), whether the mean is taken off,
    epsilon.
    """
    heads, width, centred = word(at, 4), word(at, 5), word(at, 8)
    for t in range(first, last):
        for head in range(heads):
            x = word(at, 0) + t * word(at, 2) + 4 * head * width
            out = word(at, 1) + t * word(at, 3) + 4 * head * width
            mean = _sum(isa, x, width) / np.float32(width) if centred else _ZERO
            squares = _squares(isa, x, width, mean) / np.float32(width)
            factor = _ONE / np.sqrt(squares + real(at, 9))
            _write(isa, x, out, width, mean, factor, word(at, 6), word(at, 7))


@helper
def _sum(isa, x, width):
    lanes = simd.lanes_of(isa)
    total = simd.splat(isa, _ZERO)
    for i in range(0, width - width % lanes, lanes):
        total = total + simd.load(isa, x + 4 * i)
    result = simd.sum_of(total)
    for i in range(width - width % lanes, width):
        result += get(x, i)
    return result


@helper
def _squares(isa, x, width, mean):
    lanes = simd.lanes_of(isa)
    total, other = simd.splat(isa, _ZERO), simd.splat(isa, _ZERO)
    whole = width - width % (2 * lanes)
    for i in range(0, whole, 2 * lanes):
        a, b = simd.load(isa, x + 4 * i) - mean, simd.load(isa, x + 4 * (i + lanes)) - mean
        total, other = muladd(isa, a, a, total), muladd(isa, b, b, other)
    result = simd.sum_of(total + other)
    for i in range(whole, width):
        value = get(x, i) - mean
        result += value * value
    return result


@helper
def _write(isa, x, out, width, mean, factor, weight, bias):
    lanes = simd.lanes_of(isa)
    whole = width - width % lanes
    for i in range(0, 4 * whole, 4 * lanes):
        y = (simd.load(isa, x + i) - mean) * factor * simd.load(isa, weight + i)
        if bias:
            y = y + simd.load(isa, bias + i)
        simd.store(out + i, y)
    for i in range(whole, width):
        y = (get(x, i) - mean) * factor * get(weight, i)
        put(out, i, y + get(bias, i) if bias else y)
