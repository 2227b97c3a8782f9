"""IQ2_S: points of a codebook of 1024, eight values each, with signs and 4-bit scales."""

from __future__ import annotations

import numpy as np

from edgeq.formats.blocks.base import Bytes, DecodeOnly, Floats
from edgeq.formats.blocks.codebooks import grid, quarter_scales, signs_of

_FIELDS = np.dtype(
    [("d", "<f2"), ("qs", "u1", 32), ("signs", "u1", 32), ("qh", "u1", 8), ("scales", "u1", 8)]
)
_TWO_BITS = np.array([0, 2, 4, 6], np.uint8)


class IQ2_S(DecodeOnly):
    """x = d · (scale + ½) / 4 · sign · point, a point for eight values; 2.5625 bits per weight.

    ====== ===== ==================================================================================
    offset bytes field
    ====== ===== ==================================================================================
    0      2     d, float16
    2      32    qs: low bytes of the numbers of the points
    34     32    signs: a bit per value (the second half of ``qs`` in ggml)
    66     8     qh: upper two bits of the numbers, four points to a byte
    74     8     scales: nibbles, one per 16 values, low one first
    ====== ===== ==================================================================================

    Source: ``block_iq2_s`` and ``iq2s_grid`` in ``ggml/src/ggml-common.h``,
    ``dequantize_row_iq2_s`` in ``ggml-quants.c``.
    """

    name = "IQ2_S"
    ggml_id = 22
    block_values = 256
    block_bytes = 2 + 256 // 8 + 256 // 8 + 256 // 32 + 256 // 32

    @classmethod
    def decode_blocks(cls, blocks: Bytes) -> Floats:
        block = blocks.view(_FIELDS)[:, 0]
        high = ((block["qh"][..., None] >> _TWO_BITS) & 3).reshape(-1, 32).astype(np.uint16)
        scale = block["d"].astype(np.float32)[:, None] * quarter_scales(block["scales"])
        points = grid(cls.name)[block["qs"] | (high << 8)]
        values = np.repeat(scale, 2, axis=1)[..., None] * points * signs_of(block["signs"])
        return np.asarray(values).reshape(len(blocks), -1)


assert _FIELDS.itemsize == IQ2_S.block_bytes
