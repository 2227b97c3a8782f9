"""The codebooks of the IQ types, taken from ``gguf`` when they are first needed, and their signs and scales.

Each codebook is some thousand numbers that ggml's authors found by a search (``ggml/src/ggml-common.h``).
"""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

from edgeq.formats.blocks.base import Bytes, Floats

SHIFT = np.float32(0.125)  # IQ1S_DELTA: what IQ1_S and IQ1_M add to their points, or subtract

_numbers = np.arange(128, dtype=np.uint8)
# Seven signs as bits; the eighth makes their number even (``ksigns_iq2xs``).
_EVEN = _numbers | (np.bitwise_count(_numbers) & np.uint8(1)) << np.uint8(7)


@functools.cache
def grid(type_name: str) -> Floats:
    """The points of a type's codebook, float32 ``[points, values of a point]``, not to be written to."""
    import gguf.quants  # as slow as importing NumPy

    codebook = getattr(gguf.quants, type_name)
    codebook.init_grid()
    points = np.array(codebook.grid, np.float32).reshape(codebook.grid_shape)
    points.flags.writeable = False
    return points


def signs_of(bits: Bytes) -> Floats:
    """Bytes ``[...]`` to 1 or, where a bit is set, −1: ``[..., 8]``."""
    negative = np.unpackbits(bits[..., None], axis=-1, bitorder="little")
    return np.float32(1) - np.float32(2) * negative.astype(np.float32)


def even_signs(codes: NDArray[np.integer]) -> Floats:
    """Codes below 128 ``[...]`` to eight signs each ``[..., 8]``, an even number of them negative."""
    return signs_of(_EVEN[codes])


def quarter_scales(packed: Bytes) -> Floats:
    """Nibbles ``[n, k]`` to (scale + ½) / 4 ``[n, 2·k]``, low nibbles first; exact."""
    nibbles = np.stack([packed & 15, packed >> 4], axis=2).reshape(len(packed), -1)
    return (np.float32(0.5) + nibbles.astype(np.float32)) * np.float32(0.25)
