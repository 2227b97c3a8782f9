"""Bit layouts that several block types share: nibbles, fifth bits, two bits, Q4_K's and Q5_K's scales."""

from __future__ import annotations

import numpy as np

from edgeq.formats.blocks.base import Bytes


def pack_nibbles(codes: Bytes) -> Bytes:
    """Codes below 16 ``[..., 2·k]`` to bytes ``[..., k]``: the first half low, the second half high."""
    half = codes.shape[-1] // 2
    return (codes[..., :half] & np.uint8(15)) | (codes[..., half:] << np.uint8(4))


def unpack_nibbles(qs: Bytes) -> Bytes:
    """Bytes ``[..., k]`` to codes ``[..., 2·k]``: low nibbles first, then high ones."""
    return np.concatenate([qs & 15, qs >> 4], axis=-1)


def pack_fifth_bits(codes: Bytes) -> Bytes:
    """Codes below 32 ``[n, 32]`` to their fifth bits ``[n, 4]``, a little-endian word."""
    return np.packbits(codes >> 4, axis=-1, bitorder="little")


def unpack_fifth_bits(qh: Bytes) -> Bytes:
    """``[n, 4]`` to 0 or 16 for each of the 32 codes."""
    return np.unpackbits(qh, axis=-1, bitorder="little") << np.uint8(4)


_TWO_BITS = np.array([0, 2, 4, 6], np.uint8)[:, None]


def pack_two_bits(codes: Bytes) -> Bytes:
    """Codes below 4 ``[n, 128·k]`` to bytes ``[n, 32·k]``: byte i of 32 holds codes i, i+32, i+64, i+96."""
    parts = codes.reshape(len(codes), -1, 4, 32) << _TWO_BITS
    packed: Bytes = np.bitwise_or.reduce(parts, axis=2)
    return packed.reshape(len(codes), -1)


def unpack_two_bits(qs: Bytes) -> Bytes:
    """The inverse of ``pack_two_bits``."""
    return ((qs.reshape(len(qs), -1, 1, 32) >> _TWO_BITS) & np.uint8(3)).reshape(len(qs), -1)


def pack_scales_and_mins(scales: Bytes, mins: Bytes) -> Bytes:
    """Eight 6-bit scales and eight 6-bit mins ``[n, 8]`` each to 12 bytes ``[n, 12]``.

    Bytes 0–3 hold scales 0–3 and 4–7 mins 0–3, six bits each; bytes 8–11 hold the low nibbles of scales
    4–7 and mins 4–7, whose upper two bits are the top bits of bytes 0–3 and 4–7. Source:
    ``get_scale_min_k4`` in ``ggml/src/ggml-quants.c``.
    """
    first = scales[:, :4] | (scales[:, 4:] >> 4 << 6)
    second = mins[:, :4] | (mins[:, 4:] >> 4 << 6)
    return np.concatenate([first, second, (scales[:, 4:] & 15) | (mins[:, 4:] << 4)], axis=1)


def unpack_scales_and_mins(packed: Bytes) -> tuple[Bytes, Bytes]:
    """The inverse of ``pack_scales_and_mins``: two ``[n, 8]``. Four bytes at a time, as words."""
    first, second, third = np.ascontiguousarray(packed).view("<u4").T
    scales = first & 0x3F3F3F3F, (third & 0x0F0F0F0F) | (first >> 2 & 0x30303030)
    mins = second & 0x3F3F3F3F, (third >> 4 & 0x0F0F0F0F) | (second >> 2 & 0x30303030)
    return np.stack(scales, axis=1).view(np.uint8), np.stack(mins, axis=1).view(np.uint8)
