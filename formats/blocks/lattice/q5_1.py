"""Q5_1 as a lattice; the layout is described in ``edgeq.formats.blocks.q5_1``."""

from __future__ import annotations

import numpy as np

from edgeq.formats.blocks import q5_1
from edgeq.formats.blocks.base import Bytes
from edgeq.formats.blocks.lattice.base import Lattice, Parts, scale_and_low, whole
from edgeq.formats.blocks.packing import pack_fifth_bits, pack_nibbles, unpack_fifth_bits, unpack_nibbles

LATTICE = Lattice(whole(0, 31), 32, mins=(1, 1))


def unpack(blocks: Bytes) -> Parts:
    """See the package."""
    block = blocks.view(q5_1.FIELDS)[:, 0]
    d, low = (block[field].astype(np.float32) for field in ("d", "m"))
    return scale_and_low(d, low, unpack_nibbles(block["qs"]) | unpack_fifth_bits(block["qh"]))


def pack(parts: Parts) -> Bytes:
    """See the package."""
    block = np.empty(len(parts.d), q5_1.FIELDS)
    block["d"], block["m"] = parts.d, -parts.dmin
    block["qh"] = pack_fifth_bits(parts.codes)
    block["qs"] = pack_nibbles(parts.codes)
    return block.view(np.uint8).reshape(len(block), -1)
