"""The nearest level and its code, on vectors, for each kind of levels; a kind is its type, known when compiling."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba.extending import overload

from edgeq.kernels_cpu import simd
from edgeq.kernels_cpu.encode.nonlinear import nearest_code, nearest_level
from edgeq.kernels_cpu.jit import helper
from edgeq.kernels_cpu.scalar import ZERO

_SIGN = -0x80000000
# Of the levels of ``mxfp4`` in formats that are not negative: the middles between them, and the steps between.
_FLOAT4_MIDDLES = np.array([0.5, 1.5, 2.5, 3.5, 5, 7, 10], np.float32)
_FLOAT4_STEPS = np.array([1, 1, 1, 1, 2, 2, 4], np.float32)


class Uniform(NamedTuple):
    """The whole numbers from low to high; a code is the level − ``zero``."""

    low: np.float32
    high: np.float32
    zero: np.float32


class Uneven(NamedTuple):
    """The sixteen levels of IQ4_NL and IQ4_XS."""

    lowest: np.float32


class Float4(NamedTuple):
    """The sixteen levels of MXFP4, a minus being code 8."""

    lowest: np.float32


UNEVEN = Uneven(np.float32(-127))
FLOAT4 = Float4(np.float32(-12))


def uniform(low: int, high: int, zero: int) -> Uniform:
    """Levels low..high, whose codes start at level ``zero``."""
    return Uniform(np.float32(low), np.float32(high), np.float32(zero))


def nearest(wide, levels, x):
    """The level nearest to each lane of x, which is no NaN."""


def code(wide, levels, x):
    """The code of the level nearest to each lane of x, int32."""


def _choice(uniform_, uneven, float4):
    """An overload that depends on the kind of levels."""
    kinds = {Uniform: uniform_, Uneven: uneven, Float4: float4}
    return lambda wide, levels, x: kinds.get(getattr(levels, "instance_class", None))


@helper
def _uniform_level(levels, x):
    return simd.rint(simd.minimum(simd.maximum(x, levels.low), levels.high))


@helper
def _float4_level(wide, x):
    """The one nearer to zero of two equally near."""
    level = simd.splat(wide, ZERO)
    for k in range(7):
        level += simd.select(abs(x) > _FLOAT4_MIDDLES[k], simd.splat(wide, _FLOAT4_STEPS[k]), ZERO)
    return simd.as_float(simd.as_int32(level) | (simd.as_int32(x) & _SIGN))


@helper
def _float4_code(wide, x):
    found = simd.splat(wide, 0)
    for k in range(7):
        found += simd.select(abs(x) > _FLOAT4_MIDDLES[k], simd.splat(wide, 1), 0)
    return simd.select((x < ZERO) & (found > 0), found + 8, found)


overload(nearest)(
    _choice(
        lambda wide, levels, x: _uniform_level(levels, x),
        lambda wide, levels, x: nearest_level(wide, x),
        lambda wide, levels, x: _float4_level(wide, x),
    )
)
overload(code)(
    _choice(
        lambda wide, levels, x: simd.to_int32(_uniform_level(levels, x) - levels.zero),
        lambda wide, levels, x: nearest_code(wide, x),
        lambda wide, levels, x: _float4_code(wide, x),
    )
)
