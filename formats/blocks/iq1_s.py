"""IQ1_S: points of a ternary codebook of 2048, eight values each, with a shift and 3-bit scales."""

from __future__ import annotations

import numpy as np

from edgeq.formats.blocks.base import Bytes, DecodeOnly, Floats
from edgeq.formats.blocks.codebooks import SHIFT, grid

_FIELDS = np.dtype([("d", "<f2"), ("qs", "u1", (8, 4)), ("qh", "<u2", 8)])
_THREE_BITS = np.array([0, 3, 6, 9], np.uint16)


class IQ1_S(DecodeOnly):
    """x = d · (2 · scale + 1) · (point ± ⅛), a point for eight values; 1.5625 bits per weight.

    ====== ===== ==================================================================================
    offset bytes field
    ====== ===== ==================================================================================
    0      2     d, float16
    2      32    qs: low bytes of the numbers of the points
    34     16    qh: a little-endian word per 32 values: four times the upper three bits of a number;
                 bits 12–14 the scale; bit 15 the sign of the shift
    ====== ===== ==================================================================================

    Source: ``block_iq1_s`` and ``iq1s_grid`` in ``ggml/src/ggml-common.h``,
    ``dequantize_row_iq1_s`` in ``ggml-quants.c``.
    """

    name = "IQ1_S"
    ggml_id = 19
    block_values = 256
    block_bytes = 2 + 256 // 8 + 256 // 32 * 2

    @classmethod
    def decode_blocks(cls, blocks: Bytes) -> Floats:
        block = blocks.view(_FIELDS)[:, 0]
        words = block["qh"]
        scale = block["d"].astype(np.float32)[:, None] * (2 * ((words >> 12) & 7) + 1).astype(np.float32)
        shift = np.where(words & 0x8000, -SHIFT, SHIFT)
        numbers = block["qs"] | (((words[..., None] >> _THREE_BITS) & 7) << 8)
        values = scale[..., None, None] * (grid(cls.name)[numbers] + shift[..., None, None])
        return np.asarray(values).reshape(len(blocks), -1)


assert _FIELDS.itemsize == IQ1_S.block_bytes
