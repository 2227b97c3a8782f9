"""Q2_K as a lattice; the layout is described in ``edgeq.formats.blocks.q2_k``."""

from __future__ import annotations

import numpy as np

from edgeq.formats.blocks import q2_k
from edgeq.formats.blocks.base import Bytes
from edgeq.formats.blocks.lattice.base import Lattice, Parts, whole
from edgeq.formats.blocks.packing import pack_two_bits, unpack_two_bits

LATTICE = Lattice(whole(0, 3), 16, (0, 15), (0, 15))


def unpack(blocks: Bytes) -> Parts:
    """See the package."""
    block = blocks.view(q2_k.FIELDS)[:, 0]
    d, dmin = (block[field].astype(np.float32) for field in ("d", "dmin"))
    scales, mins = (part.astype(np.float32) for part in (block["scales"] & 15, block["scales"] >> 4))
    return Parts(d, dmin, scales, mins, unpack_two_bits(block["qs"]))


def pack(parts: Parts) -> Bytes:
    """See the package."""
    block = np.empty(len(parts.d), q2_k.FIELDS)
    block["d"], block["dmin"] = parts.d, parts.dmin
    block["scales"] = parts.scales.astype(np.uint8) | (parts.mins.astype(np.uint8) << 4)
    block["qs"] = pack_two_bits(parts.codes)
    return block.view(np.uint8).reshape(len(block), -1)
