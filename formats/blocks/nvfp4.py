"""NVFP4: 4-bit floats (E2M1), four sub-blocks of 16 values with scales in E4M3."""

from __future__ import annotations

import numpy as np

from edgeq.formats.blocks.base import Bytes, DecodeOnly, Floats
from edgeq.formats.blocks.mxfp4 import LEVELS
from edgeq.formats.blocks.packing import unpack_nibbles

_FIELDS = np.dtype([("d", "u1", 4), ("qs", "u1", (4, 8))])


class NVFP4(DecodeOnly):
    """x = d / 2 · level(q), levels as in MXFP4; 4.5 bits per weight.

    ====== ===== ==============================================================
    offset bytes field
    ====== ===== ==============================================================
    0      4     d: one scale per 16 values, E4M3 without its sign
    4      32    qs: 8 bytes per sub-block, values 0–7 low, 8–15 high nibbles
    ====== ===== ==============================================================

    A file with this type has a float32 factor per tensor besides, as a tensor of its own. Source:
    ``block_nvfp4`` in ``ggml/src/ggml-common.h``, ``dequantize_row_nvfp4`` in ``ggml-quants.c``.
    """

    name = "NVFP4"
    ggml_id = 40
    block_values = 64
    block_bytes = 64 // 16 + 64 // 2

    @classmethod
    def decode_blocks(cls, blocks: Bytes) -> Floats:
        block = blocks.view(_FIELDS)[:, 0]
        codes = unpack_nibbles(block["qs"])
        return np.asarray(HALF_SCALES[block["d"]][..., None] * LEVELS[codes]).reshape(len(blocks), -1)


def _half_scales() -> Floats:
    """Half of each E4M3 byte's value: 2^(e − 7) · (1 + m / 8), subnormal for e = 0; 0 for the NaN 0x7F.

    The sign is ignored, and with it 0xFF is 480, as in ggml (``ggml_ue4m3_to_fp32``).
    """
    byte = np.arange(256)
    exponent, mantissa = (byte >> 3) & 15, byte & 7
    normal = np.ldexp((8.0 + mantissa) / 8, exponent - 7)
    values = np.where(exponent == 0, mantissa / 512, normal) / 2
    return np.where(byte == 0x7F, 0, values).astype(np.float32)


HALF_SCALES = _half_scales()

assert _FIELDS.itemsize == NVFP4.block_bytes
