"""Steps of rotary position embedding, Hugging Face order: value i of a head turns with value i + dim / 2."""

from __future__ import annotations

import math

import numpy as np

from edgeq.kernels_cpu import simd
from edgeq.kernels_cpu.jit import step
from edgeq.kernels_cpu.memory import get, put, real, word
from edgeq.kernels_cpu.steps import STATE_START


@step
def angles(first, last, at, scratch, isa):
    """Cosines, then sines of each row's position: float32 ``[T, 2 · half]``.

    Words: state, which of its words has the address of the frequencies (radians per position), half, out, its row
    bytes, what both are multiplied with.
    """
    half, magnitude = word(at, 2), real(at, 5)
    start, frequencies = word(word(at, 0), STATE_START), word(word(at, 0), word(at, 1))
    for t in range(first, last):
        out = word(at, 3) + t * word(at, 4)
        for i in range(half):
            angle = np.float64(np.float32((start + t) * np.float64(get(frequencies, i))))
            put(out, i, np.float32(math.cos(angle)) * magnitude)
            put(out, half + i, np.float32(math.sin(angle)) * magnitude)


@step
def rotate(first, last, at, scratch, isa):
    """Turn the first 2 · half values of each head, copy the others.

    Words: x, out, angles, the row bytes of each, heads, width of a head, half.
    """
    heads, width, half = word(at, 6), word(at, 7), word(at, 8)
    lanes = simd.lanes_of(isa)
    whole = half - half % lanes
    for t in range(first, last):
        cosines = word(at, 2) + t * word(at, 5)
        sines = cosines + 4 * half
        for head in range(heads):
            x = word(at, 0) + t * word(at, 3) + 4 * head * width
            out = word(at, 1) + t * word(at, 4) + 4 * head * width
            for i in range(0, 4 * whole, 4 * lanes):
                low, high = simd.load(isa, x + i), simd.load(isa, x + 4 * half + i)
                c, s = simd.load(isa, cosines + i), simd.load(isa, sines + i)
                simd.store(out + i, low * c - high * s)
                simd.store(out + 4 * half + i, high * c + low * s)
            for i in range(whole, half):
                left, right = get(x, i), get(x, half + i)
                put(out, i, left * get(cosines, i) - right * get(sines, i))
                put(out, half + i, right * get(cosines, i) + left * get(sines, i))
            for i in range(2 * half, width):
                put(out, i, get(x, i))
