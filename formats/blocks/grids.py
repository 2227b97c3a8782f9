"""Block types whose values are integers with a scale and an offset for each few of them, as such integers.

Which types these are and how they are laid out is found in their own modules.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgeq.formats.blocks import by_name, q4_0, q4_1, q4_k, q5_0, q5_1, q5_k, q6_k, q8_0
from edgeq.formats.blocks.base import Bytes, Floats
from edgeq.formats.blocks.packing import unpack_fifth_bits, unpack_nibbles
from edgeq.formats.blocks.super_block import sub_block_scales
from edgeq.formats.grid import Grid


class _Parts(NamedTuple):
    """Of blocks: codes ``[n, values]`` from 0; scales ``[n, sub-blocks]``, the code of 0, and what is added, if any."""

    codes: NDArray[np.integer]
    scales: Floats
    zero: int
    low: Floats | None = None


def has_grid(type_name: str) -> bool:
    """Whether values of the type are such integers."""
    return type_name in _PARTS


def grid_of(type_name: str, rows: Bytes, columns: int) -> Grid:
    """Rows uint8 ``[n, row_bytes]`` of a type that has a grid; its ``values()`` are the decoder's, bit for bit."""
    kind = by_name(type_name)
    parts = _PARTS[type_name](np.ascontiguousarray(rows).reshape(-1, kind.block_bytes))
    per_row = len(rows), -1
    scales = parts.scales.reshape(per_row)
    zeros, offsets = np.full(scales.shape, parts.zero, np.int16), None
    if parts.low is not None:
        zeros, offsets = _centred(scales, parts.low.reshape(per_row), parts.zero)
    groups = np.arange(columns) // (columns // max(1, scales.shape[1]))
    return Grid(parts.codes.reshape(len(rows), columns).astype(np.int16), scales, zeros, groups, offsets)


def _centred(scales: Floats, low: Floats, middle: int) -> tuple[NDArray[np.int16], Floats]:
    """Zeros and offsets of scale · code + low: around the middle code, where float32 holds the offset of that exactly.

    A product that rounds its activations errs by less when the codes lie around zero.
    """
    wide = low + scales.astype(np.float64) * middle
    offsets = wide.astype(np.float32)
    exact = offsets == wide
    return np.where(exact, middle, 0).astype(np.int16), np.where(exact, offsets, low)


def _q4_0(blocks: Bytes) -> _Parts:
    block = blocks.view(q4_0.FIELDS)[:, 0]
    return _Parts(unpack_nibbles(block["qs"]), block["d"].astype(np.float32), 8)


def _q4_1(blocks: Bytes) -> _Parts:
    block = blocks.view(q4_1.FIELDS)[:, 0]
    d, m = (block[field].astype(np.float32) for field in ("d", "m"))
    return _Parts(unpack_nibbles(block["qs"]), d, 8, m)


def _q5_0(blocks: Bytes) -> _Parts:
    block = blocks.view(q5_0.FIELDS)[:, 0]
    codes = unpack_nibbles(block["qs"]) | unpack_fifth_bits(block["qh"])
    return _Parts(codes, block["d"].astype(np.float32), 16)


def _q5_1(blocks: Bytes) -> _Parts:
    block = blocks.view(q5_1.FIELDS)[:, 0]
    d, m = (block[field].astype(np.float32) for field in ("d", "m"))
    return _Parts(unpack_nibbles(block["qs"]) | unpack_fifth_bits(block["qh"]), d, 16, m)


def _q8_0(blocks: Bytes) -> _Parts:
    block = blocks.view(q8_0.FIELDS)[:, 0]
    return _Parts(block["qs"].astype(np.int16) + np.int16(128), block["d"].astype(np.float32), 128)


def _q4_k(blocks: Bytes) -> _Parts:
    block = blocks.view(q4_k.FIELDS)[:, 0]
    d, dmin = (block[field].astype(np.float32) for field in ("d", "dmin"))
    scales, mins = sub_block_scales(d, dmin, block["scales"])
    return _Parts(q4_k.unpack_codes(block), scales, 8, -mins)


def _q5_k(blocks: Bytes) -> _Parts:
    block = blocks.view(q5_k.FIELDS)[:, 0]
    d, dmin = (block[field].astype(np.float32) for field in ("d", "dmin"))
    scales, mins = sub_block_scales(d, dmin, block["scales"])
    return _Parts(q5_k.unpack_codes(block), scales, 16, -mins)


def _q6_k(blocks: Bytes) -> _Parts:
    d, scales = q6_k.unpack_scales(blocks)
    return _Parts(q6_k.unpack_codes(blocks.view(q6_k.FIELDS)[:, 0]), d[:, None] * scales, 32)


_PARTS: dict[str, Callable[[Bytes], _Parts]] = {
    "Q4_0": _q4_0,
    "Q4_1": _q4_1,
    "Q5_0": _q5_0,
    "Q5_1": _q5_1,
    "Q8_0": _q8_0,
    "Q4_K": _q4_k,
    "Q5_K": _q5_k,
    "Q6_K": _q6_k,
}
