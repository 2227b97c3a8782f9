"""IQ2_XS: points of a codebook of 512, eight values each, with signs and 4-bit scales."""

from __future__ import annotations

import numpy as np

from edgeq.formats.blocks.base import Bytes, DecodeOnly, Floats
from edgeq.formats.blocks.codebooks import even_signs, grid, quarter_scales

_FIELDS = np.dtype([("d", "<f2"), ("qs", "<u2", 32), ("scales", "u1", 8)])


class IQ2_XS(DecodeOnly):
    """x = d · (scale + ½) / 4 · sign · point, a point for eight values; 2.3125 bits per weight.

    ====== ===== ==================================================================================
    offset bytes field
    ====== ===== ==================================================================================
    0      2     d, float16
    2      64    qs: a little-endian word per eight values: bits 0–8 the number of the point, 9–15 the
                 signs, see ``even_signs``
    66     8     scales: nibbles, one per 16 values, low one first
    ====== ===== ==================================================================================

    Source: ``block_iq2_xs`` and ``iq2xs_grid`` in ``ggml/src/ggml-common.h``,
    ``dequantize_row_iq2_xs`` in ``ggml-quants.c``.
    """

    name = "IQ2_XS"
    ggml_id = 17
    block_values = 256
    block_bytes = 2 + 256 // 8 * 2 + 256 // 32

    @classmethod
    def decode_blocks(cls, blocks: Bytes) -> Floats:
        block = blocks.view(_FIELDS)[:, 0]
        scale = block["d"].astype(np.float32)[:, None] * quarter_scales(block["scales"])
        points, signs = grid(cls.name)[block["qs"] & 511], even_signs(block["qs"] >> 9)
        values = np.repeat(scale, 2, axis=1)[..., None] * points * signs
        return np.asarray(values).reshape(len(blocks), -1)


assert _FIELDS.itemsize == IQ2_XS.block_bytes
