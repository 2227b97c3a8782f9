"""What the decoders of the IQ types share: points of a codebook with signs, or with a shift."""

from __future__ import annotations

import numpy as np

from edgeq.formats.blocks.codebooks import SHIFT, even_signs, signs_of
from edgeq.kernels_cpu.jit import helper

_HALF = np.float32(0.5)
_QUARTER = np.float32(0.25)


# Eight signs, 1 or −1, by the bits that hold them; and by the seven bits whose eighth makes their number even.
SIGNS = signs_of(np.arange(256, dtype=np.uint8))
EVEN_SIGNS = even_signs(np.arange(128))


@helper
def half_scale(nibble):
    """scale + ½ as float32."""
    return _HALF + np.float32(nibble)


@helper
def quarter_scale(nibble):
    """(scale + ½) / 4 as float32, exact."""
    return half_scale(nibble) * _QUARTER


@helper
def store_signed(out, at, scale, point, signs):
    """out[at:] = scale · point · signs, float32 ``[8]`` each, or ``[4]``."""
    for i in range(point.size):
        out[at + i] = scale * point[i] * signs[i]


@helper
def store_shifted(out, at, scale, point, down):
    """out[at:] = scale · (point ± ⅛)."""
    shift = -SHIFT if down else SHIFT
    for i in range(point.size):
        out[at + i] = scale * (point[i] + shift)


@helper
def word16(block, at):
    """Little-endian 16 bits, int64."""
    return np.int64(block[at]) | (np.int64(block[at + 1]) << 8)


@helper
def word32(block, at):
    """Little-endian 32 bits, int64."""
    return word16(block, at) | (word16(block, at + 2) << 16)
