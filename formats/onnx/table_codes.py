"""Weights as 4-bit codes of a table of 16 values, as ONNX Runtime's MatMulBnb4 holds them: NF4 and FP4.

value = scale · table[code]. Blocks are cut from the weights one row after another, wherever rows begin and end; a scale
is a block's largest magnitude. Two codes a byte, the first in the high nibble. Source of the tables:
bitsandbytes/functional.py, ``get_4bit_type``; onnxruntime/contrib_ops/cpu/quantization/blockwise_quant_block_bnb4.h,
``fp4_qaunt_map`` and ``nf4_qaunt_map``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeq.formats.table_codes import TableCodes

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]

SIZES = (16, 32, 64, 128, 256)  # others are refused by the operator
_NF4 = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
    -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
)  # fmt: skip
_FP4 = (0.0, 5.208333333e-03, 0.66666667, 1.0, 0.33333333, 0.5, 0.16666667, 0.25)


@dataclass(frozen=True)
class Table:
    """Sixteen values, and what MatMulBnb4 calls them."""

    name: str
    quant_type: int
    values: Floats

    def nearest(self, x: Floats) -> Bytes:
        """The code of the value next to each number from −1 to 1; the smaller value of two that are as near."""
        ordered, order = np.unique(self.values, return_index=True)
        codes = np.zeros(x.shape, np.uint8)
        for middle in (ordered[1:] + ordered[:-1]) / np.float32(2):
            codes += x > middle
        found: Bytes = order.astype(np.uint8)[codes]
        return found


NF4 = Table("nf4", 1, np.array(_NF4, np.float32))
FP4 = Table("fp4", 0, np.array([*_FP4, *(-value for value in _FP4)], np.float32))
TABLES = {table.name: table for table in (NF4, FP4)}


def table_of(codes: TableCodes) -> Table | None:
    """The operator's table that such codes are of; None for another, and for blocks that the operator refuses."""
    if codes.size not in SIZES:
        return None
    return next(
        (table for table in TABLES.values() if np.allclose(codes.table, table.values, 1e-6, 1e-9)), None
    )


def quantize(flat: Floats, size: int, table: Table) -> tuple[Bytes, Floats]:
    """(codes uint8 ``[n]``, scales float32 ``[ceil(n / size)]``) of weights one row after another."""
    missing = -flat.size % size
    blocks = np.pad(flat, (0, missing)).reshape(-1, size)
    scales = np.abs(blocks).max(axis=1, initial=0)
    divisors: Floats = np.where(scales > 0, scales, np.float32(1)).astype(np.float32)
    codes = table.nearest(blocks / divisors[:, None])
    return codes.reshape(-1)[: flat.size], scales


def values(codes: Bytes, scales: Floats, size: int, table: Table) -> Floats:
    """What codes ``[n]`` stand for, float32 ``[n]``."""
    found: Floats = table.values[codes] * np.repeat(scales, size)[: codes.size]
    return found


def pack(codes: Bytes) -> Bytes:
    """Codes ``[n]`` to bytes ``[ceil(n / 2)]``, the first in the high nibble."""
    if codes.size % 2:
        codes = np.append(codes, np.uint8(0))
    packed: Bytes = codes[0::2] << np.uint8(4) | codes[1::2]
    return packed
