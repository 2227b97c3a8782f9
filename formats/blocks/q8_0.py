"""Q8_0: 8-bit codes, one scale per 32 values."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgeq.formats.blocks.base import BlockType, Bytes, Floats
from edgeq.formats.blocks.rounding import round_half_away

FIELDS = np.dtype([("d", "<f2"), ("qs", "i1", 32)])


class Q8_0(BlockType):
    """x = d · q, q in −127..127 (ties away from zero); 8.5 bits per weight.

    ====== ===== =========================================
    offset bytes field
    ====== ===== =========================================
    0      2     d, float16: largest magnitude / 127
    2      32    qs, int8
    ====== ===== =========================================

    Source: ``block_q8_0`` in ``ggml/src/ggml-common.h``, ``quantize_row_q8_0_ref`` in ``ggml-quants.c``.
    """

    name = "Q8_0"
    ggml_id = 8
    block_values = 32
    block_bytes = 2 + 32

    @classmethod
    def decode_blocks(cls, blocks: Bytes) -> Floats:
        block = blocks.view(FIELDS)[:, 0]
        return np.asarray(block["d"].astype(np.float32)[:, None] * block["qs"].astype(np.float32))

    @classmethod
    def encode_blocks(cls, values: Floats, weights: Floats | None = None) -> Bytes:
        d = np.abs(values).max(axis=1) / np.float32(127)
        inverse = np.where(d != 0, 1 / d, np.float32(0))
        return pack(cls.to_half(d), round_half_away(values * inverse[:, None]))


def pack(d: NDArray[np.float16], codes: Floats) -> Bytes:
    """Blocks of d ``[n]`` and codes ``[n, 32]``, whole numbers."""
    block = np.empty(len(d), FIELDS)
    block["d"] = d
    block["qs"] = codes
    return block.view(np.uint8).reshape(len(d), -1)


assert FIELDS.itemsize == Q8_0.block_bytes
