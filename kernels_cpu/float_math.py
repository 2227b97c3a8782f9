"""Float arithmetic for products and softmax, where the last bit is nobody's: fused where the CPU can, fast exp."""

from __future__ import annotations

import numpy as np
from numba.extending import overload

from edgeq.kernels_cpu import simd
from edgeq.kernels_cpu.jit import helper

_LOG2_E = np.float32(1.44269504)
_LN2_HIGH = np.float32(0.693359375)  # few bits, so that n · it is exact
_LN2_LOW = np.float32(-2.12194440e-4)
_LEAST, _MOST = np.float32(-87.0), np.float32(88.0)
_ONE = np.float32(1)
_HALF = np.float32(0.5)
_C2, _C3, _C4, _C5, _C6 = (
    np.float32(1.6666665459e-1),
    np.float32(4.1665795894e-2),
    np.float32(8.3334519073e-3),
    np.float32(1.3981999507e-3),
    np.float32(1.9875691500e-4),
)


def muladd(isa, a, b, c):
    """a · b + c on vectors, rounded once where the isa has an instruction for it, else twice."""


@overload(muladd)
def _muladd(isa, a, b, c):
    if isa.features & {"fma", "neon"}:
        return lambda isa, a, b, c: simd.fma(a, b, c)
    return lambda isa, a, b, c: a * b + c


@helper
def exp(isa, x):
    """e^x on a vector, within 2 units in the last place (the polynomial of Cephes' ``expf``).

    Clamped to −87 and 88: no zeros, no infinities; NaN becomes e^−87.
    """
    x = simd.minimum(simd.maximum(x, _LEAST), _MOST)
    n = simd.nearest(x * _LOG2_E)
    whole = simd.to_float(n)
    r = x - whole * _LN2_HIGH - whole * _LN2_LOW
    p = muladd(isa, r, simd.splat(isa, _C6), simd.splat(isa, _C5))
    p = muladd(isa, p, r, simd.splat(isa, _C4))
    p = muladd(isa, p, r, simd.splat(isa, _C3))
    p = muladd(isa, p, r, simd.splat(isa, _C2))
    p = muladd(isa, p, r, simd.splat(isa, _HALF))
    p = muladd(isa, p * r, r, r) + _ONE
    return p * simd.as_float((n + 127) << 23)
