"""Integers that others quantized weights to, copied into GGUF blocks where those hold the very same values."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgeq.formats import blocks
from edgeq.formats.blocks import q4_0, q4_1, q5_0, q8_0
from edgeq.formats.blocks.packing import pack_fifth_bits, pack_nibbles

if TYPE_CHECKING:
    from edgeq.formats.checkpoint.quantized import Grid

_SIZE = 32  # values of a block, of all the types here

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]
Integers = NDArray[np.int16]


class Repacked(NamedTuple):
    """Blocks ``[rows, bytes of a row]``; which of them hold the source's values bit for bit, and Σ (x − x̂)² of each.

    The last two are ``[rows, blocks]``; the error is NaN or infinite where float16 does not hold a scale.
    """

    coded: Bytes
    exact: NDArray[np.bool_]
    squared_error: Floats


def can_repack(type_name: str) -> bool:
    """Whether blocks of the type can hold a grid."""
    return type_name in _PACKERS


def repack(type_name: str, grid: Grid, values: Floats) -> Repacked:
    """The grid in blocks of the type, each compared with ``values`` (float32 ``[rows, columns]``) after decoding.

    A block is exact where its columns lie in one group, its codes fit and scale and minimum are float16 numbers; in
    practice: Q4_0 takes 4 bits with the zero in the middle, Q5_0 and Q8_0 any 4 bits, Q8_0 also 8 bits with the zero in
    the middle, Q4_1 4 bits where scale · zero has no more than 11 significant bits. Columns are a multiple of 32.
    """
    first_columns = grid.groups[::_SIZE]
    codes = grid.signed().reshape(-1, _SIZE)
    scales = grid.scales.take(first_columns, axis=1).reshape(-1)
    zeros = grid.zeros.take(first_columns, axis=1).reshape(-1)
    kind = blocks.by_name(type_name)
    # What float16 cannot hold decodes to something else, and is seen so.
    with np.errstate(over="ignore", invalid="ignore"):
        packed = _PACKERS[type_name](codes, scales, zeros).view(np.uint8).reshape(-1, kind.block_bytes)
        decoded = kind.decode_blocks(packed)
    error = _squared_error(decoded, values)
    same = decoded.view(np.uint32) == np.ascontiguousarray(values).reshape(-1, _SIZE).view(np.uint32)
    return Repacked(packed.reshape(len(values), -1), same.all(axis=1).reshape(error.shape), error)


def merge(type_name: str, repacked: Repacked, encoded: Bytes, values: Floats) -> Bytes:
    """Of each block the nearer to ``values``: the repacked one, or the encoded one of the same type.

    A repacked block that is not exact is mostly one of Q4_1 whose minimum float16 rounds a little: still much nearer
    than codes that were rounded twice.
    """
    kind = blocks.by_name(type_name)
    rows, n_blocks = repacked.exact.shape
    old, new = (part.reshape(rows, n_blocks, kind.block_bytes) for part in (repacked.coded, encoded))
    error = _squared_error(kind.decode_blocks(new.reshape(-1, kind.block_bytes)), values)
    nearer = repacked.exact | (repacked.squared_error < error)
    return np.where(nearer[..., None], old, new).reshape(encoded.shape)


def _squared_error(decoded: Floats, values: Floats) -> Floats:
    """Of each block, ``[rows, blocks]``; ``decoded`` is ``[all blocks, 32]``, ``values`` ``[rows, columns]``."""
    with np.errstate(over="ignore", invalid="ignore"):
        difference = decoded - values.reshape(decoded.shape)
        squared: Floats = np.einsum("bi,bi->b", difference, difference)
    return squared.reshape(len(values), -1)


def _q4_0(codes: Integers, scales: Floats, zeros: Integers) -> NDArray[np.void]:
    block = np.empty(len(codes), q4_0.FIELDS)
    block["d"] = scales
    block["qs"] = pack_nibbles(_unsigned(codes, 8))
    return block


def _q4_1(codes: Integers, scales: Floats, zeros: Integers) -> NDArray[np.void]:
    block = np.empty(len(codes), q4_1.FIELDS)
    block["d"] = scales
    block["m"] = -(zeros * scales)
    block["qs"] = pack_nibbles(np.clip(codes + zeros[:, None], 0, 15).astype(np.uint8))
    return block


def _q5_0(codes: Integers, scales: Floats, zeros: Integers) -> NDArray[np.void]:
    block = np.empty(len(codes), q5_0.FIELDS)
    block["d"] = scales
    unsigned = _unsigned(codes, 16)
    block["qh"] = pack_fifth_bits(unsigned)
    block["qs"] = pack_nibbles(unsigned)
    return block


def _q8_0(codes: Integers, scales: Floats, zeros: Integers) -> NDArray[np.void]:
    block = np.empty(len(codes), q8_0.FIELDS)
    block["d"] = scales
    block["qs"] = np.clip(codes, -128, 127)
    return block


def _unsigned(codes: Integers, offset: int) -> Bytes:
    """Signed codes from −offset to offset − 1 as they are stored; others are clipped, and seen when decoded."""
    return np.clip(codes + offset, 0, 2 * offset - 1).astype(np.uint8)


_Packer = Callable[[Integers, Floats, Integers], NDArray[np.void]]
_PACKERS: dict[str, _Packer] = {"Q4_0": _q4_0, "Q4_1": _q4_1, "Q5_0": _q5_0, "Q8_0": _q8_0}
