"""Q2_K: 2-bit codes, sixteen sub-blocks of 16 values with 4-bit scales and mins."""

from __future__ import annotations

import numpy as np

from edgeq.formats.blocks.base import BlockType, Bytes, Floats
from edgeq.formats.blocks.packing import pack_two_bits, unpack_two_bits
from edgeq.formats.blocks.search import nearest_int, ordered_sum, search_positive_scale, search_scale_and_min
from edgeq.formats.blocks.super_block import WITH_IMPORTANCE

FIELDS = np.dtype([("scales", "u1", 16), ("qs", "u1", 64), ("d", "<f2"), ("dmin", "<f2")])
_TOP = np.float32(15)  # of a 4-bit scale or min


class Q2_K(BlockType):
    """x = d · scale · q − dmin · min, q in 0..3; 2.625 bits per weight.

    ====== ===== ==============================================================
    offset bytes field
    ====== ===== ==============================================================
    0      16    scales: one byte per 16 values, scale low, min high nibble
    16     64    qs: two bits each, see ``pack_two_bits``
    80     2     d, float16: scale of the sub-blocks' scales
    82     2     dmin, float16: scale of the sub-blocks' mins
    ====== ===== ==============================================================

    Source: ``block_q2_K`` in ``ggml/src/ggml-common.h``; ``quantize_row_q2_K_ref`` and, under importance,
    ``quantize_row_q2_K_impl`` in ``ggml-quants.c``.
    """

    name = "Q2_K"
    ggml_id = 10
    block_values = 256
    block_bytes = 256 // 16 + 256 // 4 + 2 + 2

    @classmethod
    def decode_blocks(cls, blocks: Bytes) -> Floats:
        block = blocks.view(FIELDS)[:, 0]
        codes = unpack_two_bits(block["qs"]).reshape(-1, 16, 16).astype(np.float32)
        scale, low = _sub_block_scales(block)
        return (scale[..., None] * codes - low[..., None]).reshape(len(blocks), -1)

    @classmethod
    def encode_blocks(cls, values: Floats, weights: Floats | None = None) -> Bytes:
        n = len(values)
        x = np.ascontiguousarray(values.reshape(-1, 16).T)  # [16, 16·n]: search works on columns
        if weights is None:
            scales, mins, codes = search_scale_and_min(x, np.abs(x), 3, -0.5, 0.1, 15, absolute=True)
            d, scale_codes = _round_scales(scales.reshape(n, 16))
            dmin, min_codes = _round_scales(mins.reshape(n, 16))
        else:
            columns = _importance_weights(values, weights)
            scales, mins, codes = search_scale_and_min(x, columns, 3, *WITH_IMPORTANCE)
            totals = ordered_sum(columns).reshape(n, 16).T
            if not (np.isfinite(scales) & np.isfinite(mins)).all():
                raise cls.overflow_error()
            d, scale_codes = _fit_scales(scales.reshape(n, 16), totals)
            dmin, min_codes = _fit_scales(mins.reshape(n, 16), totals)
        block = np.empty(n, FIELDS)
        block["d"], block["dmin"] = cls.to_half(d), cls.to_half(dmin)
        block["scales"] = scale_codes | (min_codes << 4)
        sub_codes = np.ascontiguousarray(codes.T).reshape(n, 16, 16)
        _requantize(sub_codes, values, block)
        block["qs"] = pack_two_bits(sub_codes.reshape(n, -1))
        return block.view(np.uint8).reshape(n, -1)


def _sub_block_scales(block: np.ndarray) -> tuple[Floats, Floats]:
    """d · scale and dmin · min of each sub-block, ``[n, 16]`` both."""
    d, dmin = (block[field].astype(np.float32)[:, None] for field in ("d", "dmin"))
    scales = block["scales"]
    return d * (scales & 15).astype(np.float32), dmin * (scales >> 4).astype(np.float32)


def _importance_weights(values: Floats, importance: Floats) -> Floats:
    """Importance · √(mean square of the super-block + x²), as ``[16, 16·n]``."""
    squares = values * values
    sigma2 = ordered_sum(squares.T) / np.float32(256)
    return np.ascontiguousarray((importance * np.sqrt(sigma2[:, None] + squares)).reshape(-1, 16).T)


def _round_scales(scales: Floats) -> tuple[Floats, Bytes]:
    """Float scale ``[n]`` and 4-bit codes ``[n, 16]`` by the largest; a negative scale wraps, as in ggml."""
    largest = np.maximum(scales.max(axis=1), np.float32(0))
    inverse = np.where(largest > 0, _TOP / largest, np.float32(0))
    return largest / _TOP, nearest_int(inverse[:, None] * scales).astype(np.uint8)


def _fit_scales(scales: Floats, totals: Floats) -> tuple[Floats, Bytes]:
    """The same by least weighted squares; totals is the sum of weights, ``[16, n]``."""
    scale, codes = search_positive_scale(np.ascontiguousarray(scales.T), 15, totals)
    return scale, np.ascontiguousarray(codes.T)


def _requantize(codes: Bytes, values: Floats, block: np.ndarray) -> None:
    """Round the values again (in place) with the scales as stored; a zero scale leaves the codes alone."""
    scale, low = _sub_block_scales(block)
    shifted = values.reshape(codes.shape) + low[..., None]
    again = np.clip(nearest_int(shifted / scale[..., None]), 0, 3).astype(np.uint8)
    np.copyto(codes, again, where=(scale != 0)[..., None])


assert FIELDS.itemsize == Q2_K.block_bytes
