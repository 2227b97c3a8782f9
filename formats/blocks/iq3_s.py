"""IQ3_S: points of a codebook of 512, four values each, with signs and 4-bit scales."""

from __future__ import annotations

import numpy as np

from edgeq.formats.blocks.base import Bytes, DecodeOnly, Floats
from edgeq.formats.blocks.codebooks import grid, signs_of

_FIELDS = np.dtype(
    [("d", "<f2"), ("qs", "u1", 64), ("qh", "u1", 8), ("signs", "u1", 32), ("scales", "u1", 4)]
)


class IQ3_S(DecodeOnly):
    """x = d · (2 · scale + 1) · sign · point, a point for four values; 3.4375 bits per weight.

    ====== ===== ==================================================================================
    offset bytes field
    ====== ===== ==================================================================================
    0      2     d, float16
    2      64    qs: low bytes of the numbers of the points
    66     8     qh: ninth bits of the numbers, bit i of byte j is that of point 8·j + i
    74     32    signs: a bit per value
    106    4     scales: nibbles, one per 32 values, low one first
    ====== ===== ==================================================================================

    Source: ``block_iq3_s`` and ``iq3s_grid`` in ``ggml/src/ggml-common.h``,
    ``dequantize_row_iq3_s`` in ``ggml-quants.c``.
    """

    name = "IQ3_S"
    ggml_id = 21
    block_values = 256
    block_bytes = 2 + 256 // 4 + 256 // 32 + 256 // 8 + 256 // 64

    @classmethod
    def decode_blocks(cls, blocks: Bytes) -> Floats:
        block = blocks.view(_FIELDS)[:, 0]
        ninth = np.unpackbits(block["qh"], axis=1, bitorder="little").astype(np.uint16) << 8
        scales = np.stack([block["scales"] & 15, block["scales"] >> 4], axis=2).reshape(-1, 8)
        scale = block["d"].astype(np.float32)[:, None] * (1 + 2 * scales).astype(np.float32)
        points = grid(cls.name)[block["qs"] | ninth].reshape(-1, 8, 4, 8)
        values = scale[..., None, None] * points * signs_of(block["signs"]).reshape(-1, 8, 4, 8)
        return np.asarray(values).reshape(len(blocks), -1)


assert _FIELDS.itemsize == IQ3_S.block_bytes
