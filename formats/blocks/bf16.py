"""BF16: the upper half of a float32, 16 bits per weight."""

from __future__ import annotations

import numpy as np

from edgeq.formats.blocks.base import BlockType, Bytes, Floats
from edgeq.formats.errors import EdgeqError


class BF16(BlockType):
    """bfloat16, little-endian, ties to even; 16 bits per weight.

    Source: ``ggml_compute_fp32_to_bf16``, ``ggml/src/ggml-impl.h``. The topmost float32 values, which
    ggml rounds to infinity, are refused.
    """

    name = "BF16"
    ggml_id = 30
    block_values = 1
    block_bytes = 2

    @classmethod
    def decode_blocks(cls, blocks: Bytes) -> Floats:
        return (blocks.view("<u2").astype(np.uint32) << 16).view(np.float32)

    @classmethod
    def encode_blocks(cls, values: Floats, weights: Floats | None = None) -> Bytes:
        bits = values.view(np.uint32)
        rounded = ((bits + (0x7FFF + ((bits >> 16) & 1))) >> 16).astype("<u2")
        if ((rounded & 0x7FFF) >= 0x7F80).any():
            raise EdgeqError("BF16: value overflows bfloat16; use F32")
        return rounded.view(np.uint8)
