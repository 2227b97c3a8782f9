"""Weights in blocks, rounded to the nearest by each block's own extremes: the bytes of ONNX Runtime's quantizer.

Source: ``MatMulNBitsQuantizer`` with its default algorithm, that is ``quantize_matmul_{2,4,8}bits`` of ONNX Runtime,
which round halves away from zero, and fill the last block of a row with codes of 0.
"""

from __future__ import annotations

import numpy as np

from edgeq.formats.onnx.blocked import BlockedRows, Bytes, Floats, Scheme, pack, split_blocks

_ZERO, _HALF, _ONE = np.float32(0), np.float32(0.5), np.float32(1)


def nearest_rows(values: Floats, scheme: Scheme, *, packed: bool = False) -> BlockedRows:
    """Round float32 ``[rows, columns]`` by the peak (symmetric) or the range of each block.

    A block whose scale is too small for an inverse counts as zeros. Fast twin: ``edgeq.kernels_cpu.blocked_weights``.
    """
    rows, columns = values.shape
    x = split_blocks(values, scheme.size)
    middle, top = np.float32(scheme.middle), np.float32(2 * scheme.middle - 1)
    low, high = np.minimum(x.min(axis=1), _ZERO), np.maximum(x.max(axis=1), _ZERO)
    if scheme.symmetric:
        scales = np.where(high > -low, high, low) / -middle
        zeros = np.full(len(x), middle)
    else:
        scales = (high - low) / top
        zeros = _rounded(_ZERO - low / np.where(scales != 0, scales, _ONE), top)
    with np.errstate(divide="ignore", over="ignore"):
        inverse = _ONE / scales
    inverse[~np.isfinite(inverse)] = 0
    codes = _rounded(x * inverse[:, None] + zeros[:, None], top).astype(np.uint8).reshape(rows, -1)
    codes[:, columns:] = 0
    shape = rows, scheme.blocks_of(columns)
    stored: Bytes | None = None if scheme.symmetric else zeros.astype(np.uint8).reshape(shape)
    found = BlockedRows(scheme, codes, scales.reshape(shape), stored)
    return pack(found, values) if packed else found


def _rounded(x: Floats, top: np.float32) -> Floats:
    """Whole numbers from 0 to ``top``, halves away from zero."""
    x = np.clip(x, _ZERO, top)
    whole = np.floor(x)
    return whole + (x - whole >= _HALF)
