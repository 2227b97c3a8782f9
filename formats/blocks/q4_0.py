"""Q4_0: 4-bit codes around zero, one scale per 32 values."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgeq.formats.blocks.base import BlockType, Bytes, Floats
from edgeq.formats.blocks.packing import pack_nibbles, unpack_nibbles
from edgeq.formats.blocks.rounding import round_by_peak
from edgeq.formats.blocks.search import row_rms_weights, search_symmetric_scale

FIELDS = np.dtype([("d", "<f2"), ("qs", "u1", 16)])


class Q4_0(BlockType):
    """x = d · (q − 8), q in 0..15; 4.5 bits per weight.

    ====== ===== ==============================================================
    offset bytes field
    ====== ===== ==============================================================
    0      2     d, float16: value of largest magnitude / −8
    2      16    qs: nibbles, values 0–15 low, 16–31 high
    ====== ===== ==============================================================

    Source: ``block_q4_0`` in ``ggml/src/ggml-common.h``; ``quantize_row_q4_0_ref`` and, under importance,
    ``quantize_row_q4_0_impl`` in ``ggml-quants.c``.
    """

    name = "Q4_0"
    ggml_id = 2
    block_values = 32
    block_bytes = 2 + 32 // 2

    @classmethod
    def decode_blocks(cls, blocks: Bytes) -> Floats:
        block = blocks.view(FIELDS)[:, 0]
        codes = unpack_nibbles(block["qs"]).astype(np.int8) - np.int8(8)
        return np.asarray(block["d"].astype(np.float32)[:, None] * codes.astype(np.float32))

    @classmethod
    def encode_blocks(cls, values: Floats, weights: Floats | None = None) -> Bytes:
        if weights is None:
            d, codes = round_by_peak(values, 8)
        else:
            d, columns = search_symmetric_scale(values.T, 8, weights.T)
            codes = columns.T
        return pack(cls.to_half(d), codes)

    @classmethod
    def error_weights(cls, values: Floats, importance: Floats) -> Floats:
        return row_rms_weights(values, importance)


def pack(d: NDArray[np.float16], codes: Bytes) -> Bytes:
    """Blocks of d ``[n]`` and codes 0..15 ``[n, 32]``."""
    block = np.empty(len(d), FIELDS)
    block["d"] = d
    block["qs"] = pack_nibbles(codes)
    return block.view(np.uint8).reshape(len(d), -1)


assert FIELDS.itemsize == Q4_0.block_bytes
