"""F32: the values themselves, 32 bits each."""

from __future__ import annotations

import numpy as np

from edgeq.formats.blocks.base import BlockType, Bytes, Floats


class F32(BlockType):
    """IEEE binary32, little-endian; 32 bits per weight. Source: ``GGML_TYPE_F32``, ``ggml.h``."""

    name = "F32"
    ggml_id = 0
    block_values = 1
    block_bytes = 4

    @classmethod
    def decode_blocks(cls, blocks: Bytes) -> Floats:
        return np.asarray(blocks.view("<f4"), np.float32)

    @classmethod
    def encode_blocks(cls, values: Floats, weights: Floats | None = None) -> Bytes:
        return np.ascontiguousarray(values, "<f4").view(np.uint8)
