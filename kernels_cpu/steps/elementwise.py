"""Steps on each value of a row: sums, products, activations.

They write whole vectors, so a row of the result needs room for one more, and a row that is read, too.
"""

from __future__ import annotations

import math

import numpy as np

from edgeq.kernels_cpu import simd
from edgeq.kernels_cpu.float_math import exp
from edgeq.kernels_cpu.jit import helper, step
from edgeq.kernels_cpu.memory import get, put, real, word

ADD, MUL = 0, 1
SCALE, SILU, GELU, GELU_TANH, RELU, TANH = 0, 1, 2, 3, 4, 5
_ONE, _TWO, _HALF = np.float32(1), np.float32(2), np.float32(0.5)
_GELU_INNER, _GELU_CUBE = np.float32(math.sqrt(2 / math.pi)), np.float32(0.044715)
_ROOT_HALF = np.float32(math.sqrt(0.5))


@step
def combine(first, last, at, scratch, isa):
    """Rows a + b or a · b. Words: which, width, a, b, out (addresses) and the bytes from row to row of each."""
    which, width = word(at, 0), word(at, 1)
    for t in range(first, last):
        a, b = word(at, 2) + t * word(at, 5), word(at, 3) + t * word(at, 6)
        out = word(at, 4) + t * word(at, 7)
        for i in range(0, 4 * width, 4 * simd.lanes_of(isa)):
            x, y = simd.load(isa, a + i), simd.load(isa, b + i)
            simd.store(out + i, x + y if which == ADD else x * y)


@step
def transform(first, last, at, scratch, isa):
    """Rows times a number, or their activation. Words: which, width, x, out, their row bytes, the number."""
    which, width, factor = word(at, 0), word(at, 1), real(at, 6)
    for t in range(first, last):
        x, out = word(at, 2) + t * word(at, 4), word(at, 3) + t * word(at, 5)
        if which == GELU:
            for i in range(width):
                value = get(x, i)
                put(out, i, _HALF * value * (_ONE + np.float32(math.erf(value * _ROOT_HALF))))
            continue
        for i in range(0, 4 * width, 4 * simd.lanes_of(isa)):
            simd.store(out + i, _transformed(isa, which, simd.load(isa, x + i), factor))


@helper
def _transformed(isa, which, x, factor):
    if which == SCALE:
        return x * factor
    if which == SILU:
        return x / (exp(isa, -x) + _ONE)
    if which == GELU_TANH:
        return x * _HALF * (_tanh(isa, (x * x * x * _GELU_CUBE + x) * _GELU_INNER) + _ONE)
    if which == RELU:
        return simd.select(x < np.float32(0), np.float32(0), x)  # NaN stays one
    return _tanh(isa, x)


@helper
def _tanh(isa, x):
    e = exp(isa, x * _TWO)
    return simd.select(x == x, (e - _ONE) / (e + _ONE), x)
