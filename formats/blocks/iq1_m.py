"""IQ1_M: points of a ternary codebook of 2048, eight values each, with shifts and 3-bit scales."""

from __future__ import annotations

import numpy as np

from edgeq.formats.blocks.base import Bytes, DecodeOnly, Floats
from edgeq.formats.blocks.codebooks import SHIFT, grid

_FIELDS = np.dtype([("qs", "u1", 32), ("qh", "u1", 16), ("scales", "<u2", 4)])
_THREE_BITS = np.array([0, 3, 6, 9], np.uint16)
_NIBBLES = np.array([12, 8, 4, 0], np.uint16)


class IQ1_M(DecodeOnly):
    """x = d · (2 · scale + 1) · (point ± ⅛), a point for eight values; 1.75 bits per weight.

    ====== ===== ==================================================================================
    offset bytes field
    ====== ===== ==================================================================================
    0      32    qs: low bytes of the numbers of the points
    32     16    qh: nibbles, one per point, low one first: upper three bits of the number, and the sign
                 of the shift
    48     8     scales: a little-endian word per 64 values: four 3-bit scales, one per 16 values; bits
                 12–15 of the four words are d, float16, the lowest four bits in the first word
    ====== ===== ==================================================================================

    Source: ``block_iq1_m`` and ``iq1s_grid`` in ``ggml/src/ggml-common.h``,
    ``dequantize_row_iq1_m`` in ``ggml-quants.c``.
    """

    name = "IQ1_M"
    ggml_id = 29
    block_values = 256
    block_bytes = 256 // 8 + 256 // 16 + 256 // 64 * 2

    @classmethod
    def decode_blocks(cls, blocks: Bytes) -> Floats:
        block = blocks.view(_FIELDS)[:, 0]
        words = block["scales"]
        d = np.bitwise_or.reduce((words & 0xF000) >> _NIBBLES, axis=1).view(np.float16).astype(np.float32)
        scales = ((words[..., None] >> _THREE_BITS) & 7).reshape(-1, 16)
        scale = np.repeat(d[:, None] * (2 * scales + 1).astype(np.float32), 2, axis=1)
        nibbles = np.stack([block["qh"] & 15, block["qh"] >> 4], axis=2).reshape(-1, 32).astype(np.uint16)
        shift = np.where(nibbles & 8, -SHIFT, SHIFT)
        numbers = block["qs"] | ((nibbles & 7) << 8)
        values = scale[..., None] * (grid(cls.name)[numbers] + shift[..., None])
        return np.asarray(values).reshape(len(blocks), -1)


assert _FIELDS.itemsize == IQ1_M.block_bytes
