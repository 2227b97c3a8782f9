"""IQ4_NL: 4-bit codes of sixteen uneven levels, one scale per 32 values."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgeq.formats.blocks.base import BlockType, Bytes, Floats
from edgeq.formats.blocks.nonlinear import LEVELS, error_weights, nearest_level, search_level_scale
from edgeq.formats.blocks.packing import pack_nibbles, unpack_nibbles

FIELDS = np.dtype([("d", "<f2"), ("qs", "u1", 16)])


class IQ4_NL(BlockType):
    """x = d · level(q), q in 0..15, levels from −127 to 113; 4.5 bits per weight.

    ====== ===== ==============================================================
    offset bytes field
    ====== ===== ==============================================================
    0      2     d, float16
    2      16    qs: nibbles, values 0–15 low, 16–31 high
    ====== ===== ==============================================================

    Source: ``block_iq4_nl`` and ``kvalues_iq4nl`` in ``ggml/src/ggml-common.h``; ``quantize_iq4_nl`` in
    ``ggml-quants.c``. (``quantize_row_iq4_nl_ref`` there tries only one scale; files are not made with it.)
    """

    name = "IQ4_NL"
    ggml_id = 20
    block_values = 32
    block_bytes = 2 + 32 // 2

    @classmethod
    def decode_blocks(cls, blocks: Bytes) -> Floats:
        block = blocks.view(FIELDS)[:, 0]
        return np.asarray(block["d"].astype(np.float32)[:, None] * LEVELS[unpack_nibbles(block["qs"])])

    @classmethod
    def encode_blocks(cls, values: Floats, weights: Floats | None = None) -> Bytes:
        x, columns = (np.ascontiguousarray(a.T) for a in (values, error_weights(values, weights)))
        d = search_level_scale(x, columns)
        inverse = np.where(d != 0, 1 / d, np.float32(0))
        return pack(cls.to_half(d), nearest_level(inverse[:, None] * values))


def pack(d: NDArray[np.float16], codes: Bytes) -> Bytes:
    """Blocks of d ``[n]`` and codes 0..15 ``[n, 32]``."""
    block = np.empty(len(d), FIELDS)
    block["d"] = d
    block["qs"] = pack_nibbles(codes)
    return block.view(np.uint8).reshape(len(d), -1)


assert FIELDS.itemsize == IQ4_NL.block_bytes
