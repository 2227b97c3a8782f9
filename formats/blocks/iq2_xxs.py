"""IQ2_XXS: points of a codebook of 256, eight values each, with signs and 4-bit scales."""

from __future__ import annotations

import numpy as np

from edgeq.formats.blocks.base import Bytes, DecodeOnly, Floats
from edgeq.formats.blocks.codebooks import even_signs, grid

_FIELDS = np.dtype([("d", "<f2"), ("qs", "<u4", (8, 2))])
_SEVEN_BITS = np.array([0, 7, 14, 21], np.uint32)


class IQ2_XXS(DecodeOnly):
    """x = d · (scale + ½) / 4 · sign · point, a point for eight values; 2.0625 bits per weight.

    ====== ===== ==================================================================================
    offset bytes field
    ====== ===== ==================================================================================
    0      2     d, float16
    2      64    qs: two little-endian words per 32 values. First word: four bytes, numbers of points.
                 Second word: four times seven bits of signs, see ``even_signs``; bits 28–31 the scale
    ====== ===== ==================================================================================

    Source: ``block_iq2_xxs`` and ``iq2xxs_grid`` in ``ggml/src/ggml-common.h``,
    ``dequantize_row_iq2_xxs`` in ``ggml-quants.c``.
    """

    name = "IQ2_XXS"
    ggml_id = 16
    block_values = 256
    block_bytes = 2 + 256 // 8 * 2

    @classmethod
    def decode_blocks(cls, blocks: Bytes) -> Floats:
        block = blocks.view(_FIELDS)[:, 0]
        points, rest = block["qs"][:, :, 0], block["qs"][:, :, 1]
        scale = np.float32(0.5) + (rest >> 28).astype(np.float32)
        scale = block["d"].astype(np.float32)[:, None] * scale * np.float32(0.25)
        signs = even_signs((rest[..., None] >> _SEVEN_BITS) & 127)
        numbers = np.ascontiguousarray(points).view(np.uint8).reshape(-1, 8, 4)
        values = scale[..., None, None] * grid(cls.name)[numbers] * signs
        return np.asarray(values).reshape(len(blocks), -1)


assert _FIELDS.itemsize == IQ2_XXS.block_bytes
