"""ONNX's blocked integers for products: the weights of a ``MatMulNBits`` node, 4 or 8 bits.

w = scale · (code − zero point), one of each for every block of 16, 32, 64, 128 or 256 columns. Source:
``MatMulNBits`` in ONNX Runtime's ``docs/ContribOperators.md``.
"""

from __future__ import annotations

import functools

import numpy as np

from edgeq.formats.blocks.base import Bytes, Floats
from edgeq.formats.errors import EdgeqError
from edgeq.kernels_cpu.products.fields import Fields, Plane, Stored
from edgeq.kernels_cpu.products.layout import Format

BLOCKS = (16, 32, 64, 128, 256)


@functools.cache
def format_of(bits: int, block: int) -> Format:
    """The format of so many bits and columns; raises EdgeqError where there is none."""
    if bits not in (4, 8) or block not in BLOCKS:
        raise EdgeqError(f"MatMulNBits with {bits} bits in blocks of {block}: there is no integer product")
    return Format(f"int{bits}x{block}", block, (bits,), "blocked", correction="zero points", halves=False)


def stored(bits: int) -> Stored:
    """Where the codes of a block's bytes are: the low nibble of a byte first."""
    return Stored((Plane(0, bits, 1),))


def fields(scales: Floats, zero_points: Bytes | None, bits: int) -> Fields:
    """Of a node's inputs: scales ``[N, blocks]``, zero points uint8 ``[N, bytes]``, packed like the codes, or
    None for the middle of the range.
    """
    n, blocks = scales.shape
    if zero_points is None:
        zeros = np.full((n, blocks), 1 << (bits - 1), np.uint8)
    elif bits == 8:
        zeros = zero_points[:, :blocks]
    else:
        zeros = np.stack([zero_points & 15, zero_points >> 4], axis=-1).reshape(n, -1)[:, :blocks]
    return Fields(scales.astype(np.float32), zeros=zeros)
