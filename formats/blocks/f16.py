"""F16: half precision, 16 bits per weight."""

from __future__ import annotations

import numpy as np

from edgeq.formats.blocks.base import BlockType, Bytes, Floats
from edgeq.formats.errors import EdgeqError


class F16(BlockType):
    """IEEE binary16, little-endian, ties to even; 16 bits per weight.

    Source: ``ggml_compute_fp32_to_fp16``, ``ggml/src/ggml-impl.h``. ggml writes infinity for what is
    larger than 65504; edgeq refuses, since no runtime can use such a weight.
    """

    name = "F16"
    ggml_id = 1
    block_values = 1
    block_bytes = 2

    @classmethod
    def decode_blocks(cls, blocks: Bytes) -> Floats:
        return blocks.view("<f2").astype(np.float32)

    @classmethod
    def encode_blocks(cls, values: Floats, weights: Floats | None = None) -> Bytes:
        return cls.to_half(values).astype("<f2", copy=False).view(np.uint8)

    @classmethod
    def overflow_error(cls) -> EdgeqError:
        return EdgeqError("F16: value overflows float16; use BF16 or F32")
