"""Half precision for kernels: float16 bits travel as int32 vectors.

By the CPU's instruction where the isa has one (without, LLVM would call a library that is not there), else
by bit arithmetic.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic, overload

from edgeq.kernels_cpu.jit import helper
from edgeq.kernels_cpu.simd import as_float, as_int32, maximum, select

_2_112 = np.float32(2.0**112)
_2_M110 = np.float32(2.0**-110)
_2_M112 = np.float32(2.0**-112)
_HALF = np.float32(0.5)


@intrinsic
def _truncated_half(_typing, x):
    halves = ir.VectorType(ir.HalfType(), x.lanes)
    bits = x.of(types.int16)

    def codegen(context, builder, sig, args):
        narrow = builder.bitcast(builder.fptrunc(args[0], halves), bits.llvm)
        return builder.zext(narrow, x.of(types.int32).llvm)

    return x.of(types.int32)(x), codegen


@intrinsic
def _extended_half(_typing, bits):
    halves = ir.VectorType(ir.HalfType(), bits.lanes)

    def codegen(context, builder, sig, args):
        narrow = builder.trunc(args[0], bits.of(types.int16).llvm)
        return builder.fpext(builder.bitcast(narrow, halves), bits.of(types.float32).llvm)

    return bits.of(types.float32)(bits), codegen


def to_half(isa, x):
    """float32 to float16 bits (int32), ties to even."""


def from_half(isa, bits):
    """float16 bits (int32) to float32, exact."""


@overload(to_half)
def _to_half(isa, x):
    return (lambda isa, x: _truncated_half(x)) if isa.has_halves else (lambda isa, x: _rounded_half(x))


@overload(from_half)
def _from_half(isa, bits):
    return (
        (lambda isa, bits: _extended_half(bits))
        if isa.has_halves
        else (lambda isa, bits: _widened_half(bits))
    )


@helper
def _rounded_half(x):
    """Bit arithmetic where there is no instruction (source: ``ggml_compute_fp32_to_fp16``)."""
    word = as_int32(x)
    exponent = maximum(word & 0x7F800000, 0x38800000)
    base = (abs(x) * _2_112) * _2_M110
    bits = as_int32(as_float(exponent + 0x07800000) + base)
    finite = ((bits >> 13) & 0x7C00) + (bits & 0xFFF)
    return ((word >> 16) & 0x8000) | select((word & 0x7FFFFFFF) > 0x7F800000, 0x7E00, finite)


@helper
def _widened_half(bits):
    """The way back (source: ``ggml_compute_fp16_to_fp32``)."""
    magnitude = bits & 0x7FFF
    normal = as_float((magnitude << 13) + 0x70000000) * _2_M112
    subnormal = as_float(magnitude | 0x3F000000) - _HALF
    return as_float(as_int32(select(magnitude < 1024, subnormal, normal)) | ((bits & 0x8000) << 16))
