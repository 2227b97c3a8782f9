"""Q4_1 as a lattice; the layout is described in ``edgeq.formats.blocks.q4_1``."""

from __future__ import annotations

import numpy as np

from edgeq.formats.blocks import q4_1
from edgeq.formats.blocks.base import Bytes
from edgeq.formats.blocks.lattice.base import Lattice, Parts, scale_and_low, whole
from edgeq.formats.blocks.packing import pack_nibbles, unpack_nibbles

LATTICE = Lattice(whole(0, 15), 32, mins=(1, 1))


def unpack(blocks: Bytes) -> Parts:
    """See the package."""
    block = blocks.view(q4_1.FIELDS)[:, 0]
    d, low = (block[field].astype(np.float32) for field in ("d", "m"))
    return scale_and_low(d, low, unpack_nibbles(block["qs"]))


def pack(parts: Parts) -> Bytes:
    """See the package."""
    block = np.empty(len(parts.d), q4_1.FIELDS)
    block["d"], block["m"] = parts.d, -parts.dmin
    block["qs"] = pack_nibbles(parts.codes)
    return block.view(np.uint8).reshape(len(block), -1)
