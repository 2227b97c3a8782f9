"""IQ3_XXS: points of a codebook of 256, four values each, with signs and 4-bit scales."""

from __future__ import annotations

import numpy as np

from edgeq.formats.blocks.base import Bytes, DecodeOnly, Floats
from edgeq.formats.blocks.codebooks import even_signs, grid

_FIELDS = np.dtype([("d", "<f2"), ("qs", "u1", (8, 4, 2)), ("scales_and_signs", "<u4", 8)])
_SEVEN_BITS = np.array([0, 7, 14, 21], np.uint32)


class IQ3_XXS(DecodeOnly):
    """x = d · (scale + ½) / 2 · sign · point, a point for four values; 3.0625 bits per weight.

    ====== ===== ==================================================================================
    offset bytes field
    ====== ===== ==================================================================================
    0      2     d, float16
    2      64    qs: numbers of the points
    66     32    scales and signs: a little-endian word per 32 values: four times seven bits of signs,
                 see ``even_signs``; bits 28–31 the scale
    ====== ===== ==================================================================================

    Source: ``block_iq3_xxs`` and ``iq3xxs_grid`` in ``ggml/src/ggml-common.h``,
    ``dequantize_row_iq3_xxs`` in ``ggml-quants.c``.
    """

    name = "IQ3_XXS"
    ggml_id = 18
    block_values = 256
    block_bytes = 2 + 256 // 4 + 256 // 32 * 4

    @classmethod
    def decode_blocks(cls, blocks: Bytes) -> Floats:
        block = blocks.view(_FIELDS)[:, 0]
        words = block["scales_and_signs"]
        scale = np.float32(0.5) + (words >> 28).astype(np.float32)
        scale = block["d"].astype(np.float32)[:, None] * scale * np.float32(0.5)
        signs = even_signs((words[..., None] >> _SEVEN_BITS) & 127)
        points = grid(cls.name)[block["qs"]].reshape(-1, 8, 4, 8)
        values = scale[..., None, None] * points * signs
        return np.asarray(values).reshape(len(blocks), -1)


assert _FIELDS.itemsize == IQ3_XXS.block_bytes
