"""Q6_K: 6-bit codes around zero, sixteen sub-blocks of 16 values with 8-bit scales."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgeq.formats.blocks.base import BlockType, Bytes, Floats
from edgeq.formats.blocks.search import nearest_int, search_symmetric_scale

FIELDS = np.dtype([("ql", "u1", (2, 2, 32)), ("qh", "u1", (2, 32)), ("scales", "i1", 16), ("d", "<f2")])
_TWO_BITS = np.array([0, 2, 4, 6], np.uint8)[:, None]
_ZERO_BLOCK = np.float32(1e-15)  # GROUP_MAX_EPS


class Q6_K(BlockType):
    """x = d · scale · (q − 32), q in 0..63; 6.5625 bits per weight.

    ====== ===== ==================================================================================
    offset bytes field
    ====== ===== ==================================================================================
    0      128   ql: low nibbles; in each half of 128 values, byte 32·k + i holds values 32·k + i
                 (low) and 32·k + i + 64 (high), k = 0, 1
    128    64    qh: upper two bits; byte i of a half holds those of values i, i+32, i+64, i+96
    192    16    scales, int8, one per 16 values
    208    2     d, float16: scale of the scales
    ====== ===== ==================================================================================

    Source: ``block_q6_K`` in ``ggml/src/ggml-common.h``; ``quantize_row_q6_K_ref`` and, under importance,
    ``quantize_row_q6_K_impl`` in ``ggml-quants.c``.
    """

    name = "Q6_K"
    ggml_id = 14
    block_values = 256
    block_bytes = 256 // 2 + 256 // 4 + 256 // 16 + 2

    @classmethod
    def decode_blocks(cls, blocks: Bytes) -> Floats:
        block = blocks.view(FIELDS)[:, 0]
        codes = unpack_codes(block).astype(np.int8) - np.int8(32)
        d, scale_codes = unpack_scales(blocks)
        scale = d[:, None] * scale_codes
        return np.asarray(scale[..., None] * codes.astype(np.float32)).reshape(len(blocks), -1)

    @classmethod
    def encode_blocks(cls, values: Floats, weights: Floats | None = None) -> Bytes:
        n = len(values)
        columns = None if weights is None else np.ascontiguousarray(weights.reshape(-1, 16).T)
        scales, codes = search_symmetric_scale(np.ascontiguousarray(values.reshape(-1, 16).T), 32, columns)
        if not np.isfinite(scales).all():
            raise cls.overflow_error()
        scales, sub_codes = scales.reshape(n, 16), np.ascontiguousarray(codes.T).reshape(n, 16, 16)
        peak = np.take_along_axis(scales, np.abs(scales).argmax(axis=1)[:, None], axis=1)[:, 0]
        zero = np.abs(peak) < _ZERO_BLOCK
        inverse = np.float32(-128) / peak
        d = cls.to_half(np.where(zero, np.float32(0), 1 / inverse))
        scale_codes = np.minimum(nearest_int(inverse[:, None] * scales), 127).astype(np.int8)
        _requantize(sub_codes, values, d.astype(np.float32), scale_codes)
        encoded = pack(d, scale_codes, sub_codes)
        encoded[zero] = 0
        return encoded


def pack(d: NDArray[np.float16], scale_codes: NDArray[np.int8], codes: Bytes) -> Bytes:
    """Blocks of d ``[n]``, scale codes ``[n, 16]`` and codes 0..63 ``[n, 16, 16]``."""
    block = np.empty(len(d), FIELDS)
    block["d"] = d
    block["scales"] = scale_codes
    quarters = codes.reshape(-1, 2, 4, 32)
    block["ql"] = (quarters[:, :, :2] & 15) | (quarters[:, :, 2:] << 4)
    block["qh"] = np.bitwise_or.reduce((quarters >> 4) << _TWO_BITS, axis=2)
    return block.view(np.uint8).reshape(len(d), -1)


def unpack_scales(blocks: Bytes) -> tuple[Floats, Floats]:
    """d ``[n]`` and the scale of each sub-block ``[n, 16]``, whole numbers."""
    block = blocks.view(FIELDS)[:, 0]
    return block["d"].astype(np.float32), block["scales"].astype(np.float32)


def _requantize(codes: Bytes, values: Floats, d: Floats, scales: NDArray[np.int8]) -> None:
    """Round the values again (in place) with the scales as stored; a zero scale leaves the codes alone."""
    scale = d[:, None] * scales.astype(np.float32)
    rounded = nearest_int(values.reshape(codes.shape) / scale[..., None])
    again = (np.clip(rounded, -32, 31) + 32).astype(np.uint8)
    np.copyto(codes, again, where=(scale != 0)[..., None])


def unpack_codes(block: np.ndarray) -> Bytes:
    """Codes 0..63 ``[n, 16, 16]`` of blocks as FIELDS."""
    low = np.concatenate([block["ql"] & 15, block["ql"] >> 4], axis=2)  # [n, half, quarter, 32]
    high = (block["qh"][:, :, None, :] >> _TWO_BITS) & 3
    return np.asarray(low | (high << 4)).reshape(-1, 16, 16)


assert FIELDS.itemsize == Q6_K.block_bytes
