"""What Q4_K and Q5_K share as lattices: eight 6-bit scales and mins."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from edgeq.formats.blocks.base import Bytes
from edgeq.formats.blocks.lattice.base import Lattice, Parts, whole
from edgeq.formats.blocks.packing import pack_scales_and_mins, unpack_scales_and_mins
from edgeq.formats.blocks.super_block import SUB_BLOCKS, SUB_VALUES, Encoded


def lattice(nmax: int) -> Lattice:
    """Codes 0..nmax."""
    return Lattice(whole(0, nmax), SUB_VALUES, (0, 63), (0, 63))


def unpack(block: np.ndarray, codes: Bytes) -> Parts:
    """Of blocks as fields and their codes."""
    scales, mins = unpack_scales_and_mins(block["scales"])
    d, dmin = (block[field].astype(np.float32) for field in ("d", "dmin"))
    return Parts(d, dmin, scales.astype(np.float32), mins.astype(np.float32), codes.reshape(len(block), -1))


def pack(parts: Parts, assemble: Callable[[Encoded], Bytes]) -> Bytes:
    """``assemble`` is the type's."""
    packed = pack_scales_and_mins(parts.scales.astype(np.uint8), parts.mins.astype(np.uint8))
    halves = parts.d.astype(np.float16), parts.dmin.astype(np.float16)
    return assemble(Encoded(*halves, packed, parts.codes.reshape(-1, SUB_BLOCKS, SUB_VALUES)))
