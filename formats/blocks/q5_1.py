"""Q5_1: 5-bit codes, one scale and one minimum per 32 values."""

from __future__ import annotations

import numpy as np

from edgeq.formats.blocks.base import BlockType, Bytes, Floats
from edgeq.formats.blocks.packing import pack_fifth_bits, pack_nibbles, unpack_fifth_bits, unpack_nibbles
from edgeq.formats.blocks.rounding import round_by_range
from edgeq.formats.blocks.search import row_rms_weights, search_scale_and_min
from edgeq.formats.blocks.super_block import WITH_IMPORTANCE

FIELDS = np.dtype([("d", "<f2"), ("m", "<f2"), ("qh", "u1", 4), ("qs", "u1", 16)])


class Q5_1(BlockType):
    """x = d · q + m, q in 0..31; 6 bits per weight.

    ====== ===== ==============================================================
    offset bytes field
    ====== ===== ==============================================================
    0      2     d, float16: (largest − smallest) / 31
    2      2     m, float16: smallest (under importance, a fitted one ≤ 0)
    4      4     qh: fifth bits, bit i of the little-endian word is value i's
    8      16    qs: low nibbles, values 0–15 low, 16–31 high
    ====== ===== ==============================================================

    Source: ``block_q5_1`` in ``ggml/src/ggml-common.h``; ``quantize_row_q5_1_ref`` and, under importance,
    ``quantize_row_q5_1_impl`` in ``ggml-quants.c``.
    """

    name = "Q5_1"
    ggml_id = 7
    block_values = 32
    block_bytes = 2 + 2 + 32 // 8 + 32 // 2

    @classmethod
    def decode_blocks(cls, blocks: Bytes) -> Floats:
        block = blocks.view(FIELDS)[:, 0]
        codes = unpack_nibbles(block["qs"]) | unpack_fifth_bits(block["qh"])
        d, m = (block[field].astype(np.float32)[:, None] for field in ("d", "m"))
        return np.asarray(d * codes.astype(np.float32) + m)

    @classmethod
    def encode_blocks(cls, values: Floats, weights: Floats | None = None) -> Bytes:
        if weights is None:
            d, m, codes = round_by_range(values, 31)
        else:
            d, minus_m, columns = search_scale_and_min(values.T, weights.T, 31, *WITH_IMPORTANCE)
            m, codes = -minus_m, columns.T
        block = np.empty(len(values), FIELDS)
        block["d"] = cls.to_half(d)
        block["m"] = cls.to_half(m)
        block["qh"] = pack_fifth_bits(codes)
        block["qs"] = pack_nibbles(codes)
        return block.view(np.uint8).reshape(len(values), -1)

    @classmethod
    def error_weights(cls, values: Floats, importance: Floats) -> Floats:
        return row_rms_weights(values, importance)


assert FIELDS.itemsize == Q5_1.block_bytes
