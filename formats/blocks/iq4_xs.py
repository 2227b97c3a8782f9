"""IQ4_XS: 4-bit codes of sixteen uneven levels, eight sub-blocks of 32 values with 6-bit scales."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgeq.formats.blocks.base import BlockType, Bytes, Floats
from edgeq.formats.blocks.nonlinear import LEVELS, error_weights, nearest_level, search_level_scale
from edgeq.formats.blocks.packing import pack_nibbles, unpack_nibbles
from edgeq.formats.blocks.search import nearest_int

FIELDS = np.dtype([("d", "<f2"), ("scales_h", "<u2"), ("scales_l", "u1", 4), ("qs", "u1", (8, 16))])
_TWO_BITS = np.arange(0, 16, 2, dtype=np.uint16)


class IQ4_XS(BlockType):
    """x = d · (scale − 32) · level(q), q in 0..15, levels as in IQ4_NL; 4.25 bits per weight.

    ====== ===== ==================================================================================
    offset bytes field
    ====== ===== ==================================================================================
    0      2     d, float16: scale of the scales
    2      2     scales_h: upper two bits of the scales, scale j at bits 2·j and up
    4      4     scales_l: their low nibbles, even scales low, odd ones high
    8      128   qs: 16 bytes per sub-block of 32 values, values 0–15 low, 16–31 high
    ====== ===== ==================================================================================

    Source: ``block_iq4_xs`` in ``ggml/src/ggml-common.h``, ``quantize_iq4_xs`` in ``ggml-quants.c``.
    """

    name = "IQ4_XS"
    ggml_id = 23
    block_values = 256
    block_bytes = 2 + 2 + 256 // 64 + 256 // 2

    @classmethod
    def decode_blocks(cls, blocks: Bytes) -> Floats:
        block = blocks.view(FIELDS)[:, 0]
        d, scale_codes = unpack_scales(blocks)
        scale = d[:, None] * scale_codes
        return np.asarray(scale[..., None] * LEVELS[unpack_nibbles(block["qs"])]).reshape(len(blocks), -1)

    @classmethod
    def encode_blocks(cls, values: Floats, weights: Floats | None = None) -> Bytes:
        n = len(values)
        subs = (a.reshape(-1, 32).T for a in (values, error_weights(values, weights)))
        scales = search_level_scale(*(np.ascontiguousarray(a) for a in subs)).reshape(n, 8)
        if not np.isfinite(scales).all():
            raise cls.overflow_error()
        peak = np.take_along_axis(scales, np.abs(scales).argmax(axis=1)[:, None], axis=1)[:, 0]
        d = -(peak + np.float32(0)) / np.float32(32)  # a block of zeros gets −0, as in ggml
        inverse = np.where(d != 0, 1 / d, np.float32(0))
        codes = np.clip(nearest_int(inverse[:, None] * scales), -32, 31)
        scale = d[:, None] * codes.astype(np.float32)  # not the rounded d that is stored: ggml's quirk
        inverse = np.where(scale != 0, 1 / scale, np.float32(0))
        levels = nearest_level(inverse[..., None] * values.reshape(n, 8, 32))
        return pack(cls.to_half(d), (codes + 32).astype(np.uint8), levels)


def pack(d: NDArray[np.float16], scale_codes: Bytes, codes: Bytes) -> Bytes:
    """Blocks of d ``[n]``, scale codes 0..63 ``[n, 8]`` and codes 0..15 ``[n, 8, 32]``."""
    block = np.empty(len(d), FIELDS)
    block["d"] = d
    block["scales_h"] = np.bitwise_or.reduce((scale_codes >> 4).astype(np.uint16) << _TWO_BITS, axis=1)
    block["scales_l"] = (scale_codes[:, 0::2] & 15) | ((scale_codes[:, 1::2] & 15) << 4)
    block["qs"] = pack_nibbles(codes)
    return block.view(np.uint8).reshape(len(d), -1)


def unpack_scales(blocks: Bytes) -> tuple[Floats, Floats]:
    """d ``[n]`` and scale − 32 of each sub-block ``[n, 8]``, whole numbers."""
    block = blocks.view(FIELDS)[:, 0]
    return block["d"].astype(np.float32), unpack_scale_codes(block).astype(np.float32)


def unpack_scale_codes(block: np.ndarray) -> NDArray[np.int8]:
    """scale − 32 of each sub-block ``[n, 8]``, of blocks as FIELDS."""
    low = np.stack([block["scales_l"] & 15, block["scales_l"] >> 4], axis=2).reshape(-1, 8)
    high = ((block["scales_h"][:, None] >> _TWO_BITS) & 3).astype(np.uint8)
    return np.asarray((low | (high << 4)).astype(np.int8) - np.int8(32))


assert FIELDS.itemsize == IQ4_XS.block_bytes
