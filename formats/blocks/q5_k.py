"""Q5_K: 5-bit codes, eight sub-blocks of 32 values with 6-bit scales and mins."""

from __future__ import annotations

import numpy as np

from edgeq.formats.blocks.base import BlockType, Bytes, Floats
from edgeq.formats.blocks.super_block import Encoded, Search, decode_super_blocks, encode_super_blocks

FIELDS = np.dtype(
    [("d", "<f2"), ("dmin", "<f2"), ("scales", "u1", 12), ("qh", "u1", 32), ("qs", "u1", (4, 32))]
)
_SEARCH = Search(-0.5, 0.1, 15)
_SUB_BLOCK = np.arange(8, dtype=np.uint8)[:, None]


class Q5_K(BlockType):
    """x = d · scale · q − dmin · min, q in 0..31; 5.5 bits per weight.

    ====== ===== ==============================================================
    offset bytes field
    ====== ===== ==============================================================
    0      2     d, float16: scale of the sub-blocks' scales
    2      2     dmin, float16: scale of the sub-blocks' mins
    4      12    scales: eight 6-bit scales and mins, see ``pack_scales_and_mins``
    16     32    qh: fifth bits, bit s of byte i is that of value i of sub-block s
    48     128   qs: 32 bytes per pair of sub-blocks, even one low, odd one high
    ====== ===== ==============================================================

    Source: ``block_q5_K`` in ``ggml/src/ggml-common.h``; ``quantize_row_q5_K_ref`` and, under importance,
    ``quantize_row_q5_K_impl`` in ``ggml-quants.c``.
    """

    name = "Q5_K"
    ggml_id = 13
    block_values = 256
    block_bytes = 2 + 2 + 12 + 256 // 8 + 256 // 2

    @classmethod
    def decode_blocks(cls, blocks: Bytes) -> Floats:
        block = blocks.view(FIELDS)[:, 0]
        d, dmin = (block[field].astype(np.float32) for field in ("d", "dmin"))
        return decode_super_blocks(d, dmin, block["scales"], unpack_codes(block))

    @classmethod
    def encode_blocks(cls, values: Floats, weights: Floats | None = None) -> Bytes:
        encoded = encode_super_blocks(cls, values, weights, 31, _SEARCH)
        return assemble(encoded)


def assemble(encoded: Encoded) -> Bytes:
    """Blocks ``[n, 176]``."""
    nibbles = encoded.codes & 15
    block = np.empty(len(encoded.d), FIELDS)
    block["d"], block["dmin"], block["scales"] = encoded.d, encoded.dmin, encoded.scales
    block["qh"] = np.bitwise_or.reduce((encoded.codes >> 4) << _SUB_BLOCK, axis=1)
    block["qs"] = nibbles[:, 0::2] | (nibbles[:, 1::2] << 4)
    return block.view(np.uint8).reshape(len(block), -1)


def unpack_codes(block: np.ndarray) -> Bytes:
    """Codes ``[n, 8, 32]`` of blocks as FIELDS."""
    nibbles = np.stack([block["qs"] & 15, block["qs"] >> 4], axis=2).reshape(-1, 8, 32)
    fifth = ((block["qh"][:, None, :] >> _SUB_BLOCK) & 1) << 4
    return np.asarray(nibbles | fifth)


assert FIELDS.itemsize == Q5_K.block_bytes
