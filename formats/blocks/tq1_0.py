"""TQ1_0: ternary codes, five to a byte, one scale per 256 values."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgeq.formats.blocks.base import BlockType, Bytes, Floats
from edgeq.formats.blocks.rounding import round_to_trits

_FIELDS = np.dtype([("qs", "u1", 48), ("qh", "u1", 4), ("d", "<f2")])
_POWERS = np.array([81, 27, 9, 3, 1], np.uint16)[:, None]  # of the trits of a byte, the first one highest
_SHIFTS = np.array([1, 3, 9, 27, 81], np.uint8)[:, None]  # bring a byte's trit to the top


class TQ1_0(BlockType):
    """x = d · (q − 1), q in 0..2; 1.6875 bits per weight.

    A byte holds five codes as the fraction t / 243, t in base 3, scaled to 256 and rounded up: multiplying
    by 3^i (and dropping the carry) brings code i to the top, where · 3 / 256 reads it.

    ====== ===== ==================================================================================
    offset bytes field
    ====== ===== ==================================================================================
    0      48    qs: byte i < 32 holds values i + 32·k, k in 0..4; byte 32 + i values 160 + i + 16·k
    48     4     qh: byte i holds values 240 + i + 4·k, k in 0..3, and no fifth
    52     2     d, float16: largest magnitude
    ====== ===== ==================================================================================

    Source: ``block_tq1_0`` in ``ggml/src/ggml-common.h``, ``quantize_row_tq1_0_ref`` in ``ggml-quants.c``.
    """

    name = "TQ1_0"
    ggml_id = 34
    block_values = 256
    block_bytes = (256 - 4 * 4) // 5 + 256 // 64 + 2

    @classmethod
    def decode_blocks(cls, blocks: Bytes) -> Floats:
        block = blocks.view(_FIELDS)[:, 0]
        parts = (block["qs"][:, :32], block["qs"][:, 32:], block["qh"])
        digits = [
            (part[:, None, :] * _SHIFTS[:k]).reshape(len(blocks), -1)
            for part, k in zip(parts, (5, 5, 4), strict=True)
        ]
        codes = (np.concatenate(digits, axis=1).astype(np.uint16) * np.uint16(3) >> 8).astype(
            np.int8
        ) - np.int8(1)
        return np.asarray(block["d"].astype(np.float32)[:, None] * codes.astype(np.float32))

    @classmethod
    def encode_blocks(cls, values: Floats, weights: Floats | None = None) -> Bytes:
        d, codes = round_to_trits(values)
        return pack(cls.to_half(d), codes)


def pack(d: NDArray[np.float16], codes: Bytes) -> Bytes:
    """Blocks of d ``[n]`` and codes 0..2 ``[n, 256]``."""
    n = len(d)
    digits = codes.astype(np.uint16)
    parts = (digits[:, :160].reshape(n, 5, 32), digits[:, 160:240].reshape(n, 5, 16))
    block = np.empty(n, _FIELDS)
    block["d"] = d
    block["qs"] = np.concatenate([_pack_digits(part) for part in parts], axis=1)
    block["qh"] = _pack_digits(digits[:, 240:].reshape(n, 4, 4))
    return block.view(np.uint8).reshape(n, -1)


def _pack_digits(digits: np.ndarray) -> Bytes:
    """Digits 0..2 ``[n, 4 or 5, bytes]`` to bytes, ⌈t · 256 / 243⌉."""
    total = (digits * _POWERS[: digits.shape[1]]).sum(axis=1, dtype=np.uint16)
    return np.asarray((total * np.uint16(256) + np.uint16(242)) // np.uint16(243), np.uint8)


assert _FIELDS.itemsize == TQ1_0.block_bytes
