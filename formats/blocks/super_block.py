"""What Q4_K and Q5_K share: eight sub-blocks of 32 values, each with a 6-bit scale and a 6-bit min.

``x = d · scale · code − dmin · min``. Sources: ``quantize_row_q4_K_ref``, ``quantize_row_q5_K_ref`` and the
``_impl`` functions beside them in ``ggml/src/ggml-quants.c``.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgeq.formats.blocks.base import BlockType, Bytes, Floats
from edgeq.formats.blocks.packing import pack_scales_and_mins, unpack_scales_and_mins
from edgeq.formats.blocks.search import (
    nearest_int,
    ordered_sum,
    search_positive_scale,
    search_scale_and_min,
)

SUB_BLOCKS = 8
SUB_VALUES = 32
_TOP = np.float32(63)  # of a 6-bit scale or min


class Search(NamedTuple):
    """Range of the inverse scales that ``search_scale_and_min`` tries: first, step, number of steps."""

    first: float
    step: float
    steps: int


WITH_IMPORTANCE = Search(-0.9, 0.05, 36)


class Encoded(NamedTuple):
    d: NDArray[np.float16]  # [n]
    dmin: NDArray[np.float16]  # [n]
    scales: Bytes  # [n, 12], packed
    codes: Bytes  # [n, 8, 32]


def encode_super_blocks(
    block_type: type[BlockType], values: Floats, importance: Floats | None, nmax: int, search: Search
) -> Encoded:
    """Scales, mins and codes 0..nmax of float32 ``[n, 256]``; ``search`` is the one without importance."""
    n = len(values)
    x = np.ascontiguousarray(values.reshape(-1, SUB_VALUES).T)  # [32, 8·n]: search works on columns
    if importance is None:
        rms = np.sqrt(ordered_sum(x * x) / np.float32(SUB_VALUES))
        scales, mins, codes = search_scale_and_min(x, rms + np.abs(x), nmax, *search)
        d, scale_codes = _round_scales(scales.reshape(n, SUB_BLOCKS))
        dmin, min_codes = _round_scales(mins.reshape(n, SUB_BLOCKS))
    else:
        weights = _importance_weights(values, importance)
        scales, mins, codes = search_scale_and_min(x, weights, nmax, *WITH_IMPORTANCE)
        totals = ordered_sum(weights).reshape(n, SUB_BLOCKS).T
        d, scale_codes = _fit_scales(block_type, scales.reshape(n, SUB_BLOCKS), totals)
        dmin, min_codes = _fit_scales(block_type, mins.reshape(n, SUB_BLOCKS), totals)
    halves = block_type.to_half(np.stack([d, dmin]))
    packed = pack_scales_and_mins(scale_codes, min_codes)
    sub_codes = np.ascontiguousarray(codes.T).reshape(n, SUB_BLOCKS, SUB_VALUES)
    _requantize(sub_codes, values, halves[0], halves[1], packed, nmax)
    return Encoded(halves[0], halves[1], packed, sub_codes)


def sub_block_scales(d: Floats, dmin: Floats, packed: Bytes) -> tuple[Floats, Floats]:
    """d · scale and dmin · min of each sub-block, ``[n, 8]`` both."""
    scales, mins = unpack_scales_and_mins(packed)
    return d[:, None] * scales.astype(np.float32), dmin[:, None] * mins.astype(np.float32)


def decode_super_blocks(d: Floats, dmin: Floats, packed: Bytes, codes: Bytes) -> Floats:
    """``[n, 256]`` from d and dmin ``[n]``, packed scales ``[n, 12]`` and codes ``[n, 8, 32]``."""
    scale, low = sub_block_scales(d, dmin, packed)
    return (scale[..., None] * codes.astype(np.float32) - low[..., None]).reshape(len(codes), -1)


def _importance_weights(values: Floats, importance: Floats) -> Floats:
    """Importance · √(2 · mean square of the super-block + x²), as ``[32, 8·n]``."""
    squares = values * values
    sigma2 = 2 * ordered_sum(squares.T) / np.float32(values.shape[1])
    weights = importance * np.sqrt(sigma2[:, None] + squares)
    return np.ascontiguousarray(weights.reshape(-1, SUB_VALUES).T)


def _round_scales(scales: Floats) -> tuple[Floats, Bytes]:
    """Float scale ``[n]`` and 6-bit codes ``[n, 8]`` by the largest of each block (``_ref``)."""
    largest = np.maximum(scales.max(axis=1), np.float32(0))
    inverse = np.where(largest > 0, _TOP / largest, np.float32(0))
    codes = nearest_int(inverse[:, None] * scales).astype(np.uint8)  # a negative scale wraps, as in ggml
    return largest / _TOP, np.minimum(codes, 63)


def _fit_scales(block_type: type[BlockType], scales: Floats, totals: Floats) -> tuple[Floats, Bytes]:
    """The same by least weighted squares (``_impl``); totals is the sum of weights, ``[8, n]``."""
    if not np.isfinite(scales).all():
        raise block_type.overflow_error()
    scale, codes = search_positive_scale(np.ascontiguousarray(scales.T), 63, totals)
    return scale, np.ascontiguousarray(codes.T)


def _requantize(
    codes: Bytes, values: Floats, d: NDArray[np.float16], dmin: NDArray[np.float16], packed: Bytes, nmax: int
) -> None:
    """Round the values again (in place) with the scales as stored; a zero scale leaves the codes alone."""
    scale, low = sub_block_scales(d.astype(np.float32), dmin.astype(np.float32), packed)
    shifted = values.reshape(codes.shape) + low[..., None]
    again = np.clip(nearest_int(shifted / scale[..., None]), 0, nmax).astype(np.uint8)
    np.copyto(codes, again, where=(scale != 0)[..., None])
