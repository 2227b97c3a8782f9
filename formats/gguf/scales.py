"""Where each tensor type keeps its floats: what decides whether a block can be decoded to finite values.

Source: the block structs of ggml/src/ggml-common.h and ``ggml_validate_row_data`` in ggml/src/ggml-quants.c
(llama.cpp 0c1e57098), which a test compares this with. It is a table beside ``TENSOR_TYPES`` and no method of
the codecs, because it holds also for the types that edgeq cannot decode.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeq.formats.gguf.types import TENSOR_TYPES_BY_NAME

Bits = NDArray[Any]  # unsigned integers
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class FloatFormat:
    """A float's bits: not finite where all of ``exponent`` is set, and then NaN where ``is_nan`` says so."""

    dtype: str
    exponent: int
    mantissa: int

    def is_nan(self, bits: Bits) -> Flags:
        return (bits & self.mantissa) != 0 if self.mantissa else np.ones(bits.shape, np.bool_)


F16 = FloatFormat("<u2", 0x7C00, 0x03FF)
BF16 = FloatFormat("<u2", 0x7F80, 0x007F)
F32 = FloatFormat("<u4", 0x7F80_0000, 0x007F_FFFF)
F64 = FloatFormat("<u8", 0x7FF0_0000_0000_0000, 0x000F_FFFF_FFFF_FFFF)
E8M0 = FloatFormat("<u1", 0xFF, 0)  # an exponent alone; 255 is NaN, there is no infinity
VALUE = ""  # the field's name in a type whose block is one float


@dataclass(frozen=True)
class ScaleField:
    """A float in a block: its name in ggml's struct, its byte offset, its format."""

    name: str
    offset: int
    format: FloatFormat

    def bits(self, blocks: NDArray[np.uint8]) -> Bits:
        size = np.dtype(self.format.dtype).itemsize
        if blocks.shape[1] == size:
            return blocks.view(self.format.dtype)[:, 0]
        part = np.ascontiguousarray(blocks[:, self.offset : self.offset + size])
        return part.view(self.format.dtype)[:, 0]


class _SpreadHalf(ScaleField):
    """IQ1_M's d: a float16 in the high nibbles of its four 16-bit scales, lowest nibble first."""

    def bits(self, blocks: NDArray[np.uint8]) -> Bits:
        words = np.ascontiguousarray(blocks[:, self.offset : self.offset + 8]).view("<u2") >> 12
        return words[:, 0] | (words[:, 1] << 4) | (words[:, 2] << 8) | (words[:, 3] << 12)


def _d(offset: int = 0) -> tuple[ScaleField, ...]:
    return (ScaleField("d", offset, F16),)


def _d_and(second: str, offset: int = 0) -> tuple[ScaleField, ...]:
    return (ScaleField("d", offset, F16), ScaleField(second, offset + 2, F16))


_AT_THE_START = ("Q1_0", "Q2_0", "Q4_0", "Q5_0", "Q8_0", "IQ4_NL", "IQ4_XS", "IQ1_S", "IQ2_XXS", "IQ2_XS", "IQ2_S",
                 "IQ3_XXS", "IQ3_S")  # fmt: skip
_NO_FLOATS = ("I8", "I16", "I32", "I64", "NVFP4")  # NVFP4's UE4M3 scales: ggml reads every byte as finite

SCALE_FIELDS: dict[str, tuple[ScaleField, ...]] = {
    "F32": (ScaleField(VALUE, 0, F32),),
    "F16": (ScaleField(VALUE, 0, F16),),
    "BF16": (ScaleField(VALUE, 0, BF16),),
    "F64": (ScaleField(VALUE, 0, F64),),
    **dict.fromkeys(_AT_THE_START, _d()),
    **dict.fromkeys(_NO_FLOATS, ()),
    "Q4_1": _d_and("m"),
    "Q5_1": _d_and("m"),
    "Q8_1": _d_and("s"),
    "Q4_K": _d_and("dmin"),
    "Q5_K": _d_and("dmin"),
    "Q2_K": _d_and("dmin", 16 + 64),
    "Q3_K": _d(32 + 64 + 12),
    "Q6_K": _d(128 + 64 + 16),
    "Q8_K": (ScaleField("d", 0, F32),),
    "IQ1_M": (_SpreadHalf("d", 32 + 16, F16),),
    "TQ1_0": _d(48 + 4),
    "TQ2_0": _d(64),
    "MXFP4": (ScaleField("e", 0, E8M0),),
}
assert SCALE_FIELDS.keys() == TENSOR_TYPES_BY_NAME.keys()


def not_finite(type_name: str, blocks: NDArray[np.uint8]) -> Iterator[tuple[str, Flags, Flags]]:
    """For uint8 ``[n, block_bytes]``: each float field with a NaN or an infinity, and which blocks have them.

    Yields (field, bool ``[n]`` of the NaN, bool ``[n]`` of the infinities); nothing for sound blocks.
    """
    for field in SCALE_FIELDS[type_name]:
        bits, exponent = field.bits(blocks), field.format.exponent
        bad = (bits & exponent) == exponent
        if bad.any():
            nan = bad & field.format.is_nan(bits)
            yield field.name, nan, bad & ~nan
