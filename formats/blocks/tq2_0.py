"""TQ2_0: ternary codes of two bits, one scale per 256 values."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgeq.formats.blocks.base import BlockType, Bytes, Floats
from edgeq.formats.blocks.packing import pack_two_bits, unpack_two_bits
from edgeq.formats.blocks.rounding import round_to_trits

_FIELDS = np.dtype([("qs", "u1", 64), ("d", "<f2")])


class TQ2_0(BlockType):
    """x = d · (q − 1), q in 0..2 (3 decodes as 2 · d); 2.0625 bits per weight.

    ====== ===== ==============================================================
    offset bytes field
    ====== ===== ==============================================================
    0      64    qs: two bits each, see ``pack_two_bits``
    64     2     d, float16: largest magnitude
    ====== ===== ==============================================================

    Source: ``block_tq2_0`` in ``ggml/src/ggml-common.h``, ``quantize_row_tq2_0_ref`` in ``ggml-quants.c``.
    """

    name = "TQ2_0"
    ggml_id = 35
    block_values = 256
    block_bytes = 256 // 4 + 2

    @classmethod
    def decode_blocks(cls, blocks: Bytes) -> Floats:
        block = blocks.view(_FIELDS)[:, 0]
        codes = unpack_two_bits(block["qs"]).astype(np.int8) - np.int8(1)
        return np.asarray(block["d"].astype(np.float32)[:, None] * codes.astype(np.float32))

    @classmethod
    def encode_blocks(cls, values: Floats, weights: Floats | None = None) -> Bytes:
        d, codes = round_to_trits(values)
        return pack(cls.to_half(d), codes)


def pack(d: NDArray[np.float16], codes: Bytes) -> Bytes:
    """Blocks of d ``[n]`` and codes 0..2 ``[n, 256]``."""
    block = np.empty(len(d), _FIELDS)
    block["d"] = d
    block["qs"] = pack_two_bits(codes)
    return block.view(np.uint8).reshape(len(d), -1)


assert _FIELDS.itemsize == TQ2_0.block_bytes
