"""MXFP4: 4-bit floats (E2M1) with one power of two per 32 values, the OCP microscaling format."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgeq.formats.blocks.base import BlockType, Bytes, Floats
from edgeq.formats.blocks.packing import pack_nibbles, unpack_nibbles

# Twice the sixteen values of E2M1, so that they are whole; code 8 is −0, which ggml stores as 0.
LEVELS = np.array([0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12], np.float32)
_FIELDS = np.dtype([("e", "u1"), ("qs", "u1", 16)])


class MXFP4(BlockType):
    """x = 2^(e − 128) · level(q), levels 0, ±1, ±2, ±3, ±4, ±6, ±8, ±12; 4.25 bits per weight.

    ====== ===== ==============================================================
    offset bytes field
    ====== ===== ==============================================================
    0      1     e: exponent of the scale, E8M0: ⌊log2 of the largest magnitude⌋ + 125
    1      16    qs: nibbles, values 0–15 low, 16–31 high
    ====== ===== ==============================================================

    Source: ``block_mxfp4`` and ``kvalues_fp4`` in ``ggml/src/ggml-common.h``, ``quantize_row_mxfp4_ref`` in
    ``ggml-quants.c``. Where no magnitude reaches 2^−125, ggml's exponent wraps around to 255 and less (255 is
    NaN by the standard, and ``ggml_validate_row_data`` refuses it) and the values are lost; ours stops at 0.
    """

    name = "MXFP4"
    ggml_id = 39
    block_values = 32
    block_bytes = 1 + 32 // 2

    @classmethod
    def decode_blocks(cls, blocks: Bytes) -> Floats:
        block = blocks.view(_FIELDS)[:, 0]
        return np.asarray(half_power_of_two(block["e"])[:, None] * LEVELS[unpack_nibbles(block["qs"])])

    @classmethod
    def encode_blocks(cls, values: Floats, weights: Floats | None = None) -> Bytes:
        e = _exponents(np.abs(values).max(axis=1))
        return pack(e, nearest_codes(values, half_power_of_two(e)))


def nearest_codes(values: Floats, d: Floats) -> Bytes:
    """The codes of the levels nearest to values ``[n, 32]`` in units of d ``[n]``; of equal errors the first."""
    levels = d[:, None] * LEVELS  # [n, 16]
    return np.asarray(np.abs(levels[:, None, :] - values[..., None]).argmin(axis=2), np.uint8)


def pack(e: Bytes, codes: Bytes) -> Bytes:
    """Blocks of exponents ``[n]`` and codes 0..15 ``[n, 32]``."""
    block = np.empty(len(e), _FIELDS)
    block["e"] = e
    block["qs"] = pack_nibbles(codes)
    return block.view(np.uint8).reshape(len(e), -1)


def half_power_of_two(e: NDArray[np.uint8]) -> Floats:
    """2^(e − 128), exact also where it is subnormal (source: ``ggml_e8m0_to_fp32_half``)."""
    return np.ldexp(np.float32(1), e.astype(np.int32) - 128)


def _exponents(peaks: Floats) -> Bytes:
    """e of each block; the logarithm is rounded to float32 before the floor, as C's ``log2f`` is."""
    whole = np.floor(np.log2(peaks.astype(np.float64)).astype(np.float32))
    return np.where(peaks > 0, np.clip(whole + 125, 0, 254), 0).astype(np.uint8)


assert _FIELDS.itemsize == MXFP4.block_bytes
