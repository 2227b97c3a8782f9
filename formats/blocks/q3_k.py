"""Q3_K: 3-bit codes around zero, sixteen sub-blocks of 16 values with 6-bit scales."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgeq.formats.blocks.base import BlockType, Bytes, Floats
from edgeq.formats.blocks.packing import pack_two_bits, unpack_two_bits
from edgeq.formats.blocks.search import nearest_int, ordered_sum, search_by_moves, search_symmetric_scale

FIELDS = np.dtype([("hmask", "u1", 32), ("qs", "u1", 64), ("scales", "u1", 12), ("d", "<f2")])
_EIGHTH = np.arange(8, dtype=np.uint8)[:, None]  # of the block: 32 values
_TWO_BITS = np.array([0, 2, 4, 6], np.uint8)[:, None]


class Q3_K(BlockType):
    """x = d · (scale − 32) · (q − 4), q in 0..7, scale in 0..63; 3.4375 bits per weight.

    ====== ===== ==================================================================================
    offset bytes field
    ====== ===== ==================================================================================
    0      32    hmask: upper bits of q, bit s of byte i is that of value 32·s + i
    32     64    qs: lower two bits, see ``pack_two_bits``
    96     12    scales: byte j < 8 holds the low nibbles of scales j (low) and j + 8 (high); the upper
                 two bits of scale j are bits 2·(j // 4) and up of byte 8 + j % 4
    108    2     d, float16: scale of the scales
    ====== ===== ==================================================================================

    Source: ``block_q3_K`` in ``ggml/src/ggml-common.h``; ``quantize_row_q3_K_ref`` and, under importance,
    ``quantize_row_q3_K_impl`` in ``ggml-quants.c``.
    """

    name = "Q3_K"
    ggml_id = 11
    block_values = 256
    block_bytes = 256 // 8 + 256 // 4 + 12 + 2

    @classmethod
    def decode_blocks(cls, blocks: Bytes) -> Floats:
        block = blocks.view(FIELDS)[:, 0]
        codes = unpack_codes(block).astype(np.int8) - np.int8(4)
        d, scale_codes = unpack_scales(blocks)
        scale = (d[:, None] * scale_codes)[..., None]
        return (scale * codes.astype(np.float32).reshape(-1, 16, 16)).reshape(len(blocks), -1)

    @classmethod
    def encode_blocks(cls, values: Floats, weights: Floats | None = None) -> Bytes:
        n = len(values)
        x = np.ascontiguousarray(values.reshape(-1, 16).T)  # [16, 16·n]: search works on columns
        if weights is None:
            scales, codes = search_by_moves(x, 4)
        else:
            columns = _importance_weights(values, weights)
            scales, codes = search_symmetric_scale(x, 4, columns)
        if not np.isfinite(scales).all():
            raise cls.overflow_error()
        scales = scales.reshape(n, 16)
        if weights is None:
            d, scale_codes = _round_scales(scales)
        else:
            totals = np.ascontiguousarray(ordered_sum(columns).reshape(n, 16).T)
            d, found = search_symmetric_scale(np.ascontiguousarray(scales.T), 32, totals)
            scale_codes = found.T
        sub_codes = np.ascontiguousarray(codes.T).reshape(n, 16, 16)
        halves = cls.to_half(d)
        _requantize(sub_codes, values, halves.astype(np.float32), scale_codes)
        return pack(halves, scale_codes, sub_codes)


def pack(d: NDArray[np.float16], scale_codes: Bytes, codes: Bytes) -> Bytes:
    """Blocks of d ``[n]``, scale codes 0..63 ``[n, 16]`` and codes 0..7 ``[n, 16, 16]``."""
    n = len(d)
    block = np.empty(n, FIELDS)
    block["d"] = d
    block["scales"] = _pack_scales(scale_codes)
    block["qs"] = pack_two_bits(codes.reshape(n, -1) & np.uint8(3))
    block["hmask"] = np.bitwise_or.reduce((codes.reshape(n, 8, 32) >> 2) << _EIGHTH, axis=1)
    return block.view(np.uint8).reshape(n, -1)


def unpack_scales(blocks: Bytes) -> tuple[Floats, Floats]:
    """d ``[n]`` and scale − 32 of each sub-block ``[n, 16]``, whole numbers."""
    block = blocks.view(FIELDS)[:, 0]
    return block["d"].astype(np.float32), unpack_scale_codes(block).astype(np.float32)


def unpack_scale_codes(block: np.ndarray) -> NDArray[np.int8]:
    """scale − 32 of each sub-block ``[n, 16]``, of blocks as FIELDS. Four bytes at a time, as words."""
    first, second, high = np.ascontiguousarray(block["scales"]).view("<u4").T
    low = [word & 0x0F0F0F0F for word in (first, second, first >> 4, second >> 4)]
    codes = [word | (high >> 2 * i & 0x03030303) << 4 for i, word in enumerate(low)]
    return np.stack(codes, axis=1).view(np.int8) - np.int8(32)


def _pack_scales(codes: Bytes) -> Bytes:
    low = (codes[:, :8] & 15) | (codes[:, 8:] << 4)
    high = np.bitwise_or.reduce((codes.reshape(-1, 4, 4) >> 4) << _TWO_BITS, axis=1)
    return np.concatenate([low, high], axis=1)


def _importance_weights(values: Floats, importance: Floats) -> Floats:
    """Importance · √(2 · mean square of the super-block + x²), as ``[16, 16·n]``."""
    squares = values * values
    sigma2 = 2 * ordered_sum(squares.T) / np.float32(256)
    return np.ascontiguousarray((importance * np.sqrt(sigma2[:, None] + squares)).reshape(-1, 16).T)


def _round_scales(scales: Floats) -> tuple[Floats, Bytes]:
    """Float scale ``[n]`` and codes 0..63 ``[n, 16]`` by the largest; all 0 in a block of zeros."""
    peak = np.take_along_axis(scales, np.abs(scales).argmax(axis=1)[:, None], axis=1)[:, 0]
    zero = peak == 0
    inverse = np.float32(-32) / peak
    codes = np.clip(nearest_int(inverse[:, None] * scales), -32, 31) + 32
    codes[zero] = 0
    return np.where(zero, np.float32(0), 1 / inverse), codes.astype(np.uint8)


def _requantize(codes: Bytes, values: Floats, d: Floats, scale_codes: Bytes) -> None:
    """Round the values again (in place) with the scales as stored; a zero scale leaves the codes alone."""
    scale: Floats = d[:, None] * (scale_codes.astype(np.float32) - np.float32(32))
    rounded = nearest_int(values.reshape(codes.shape) / scale[..., None])
    again = (np.clip(rounded, -4, 3) + 4).astype(np.uint8)
    np.copyto(codes, again, where=(scale != 0)[..., None])


def unpack_codes(block: np.ndarray) -> Bytes:
    """Codes 0..7 ``[n, 256]`` of blocks as FIELDS."""
    high = ((block["hmask"][:, None, :] >> _EIGHTH) & 1).reshape(len(block), 256)
    return np.asarray(unpack_two_bits(block["qs"]) | (high << 2))


assert FIELDS.itemsize == Q3_K.block_bytes
