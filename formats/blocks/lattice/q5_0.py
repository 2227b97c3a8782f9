"""Q5_0 as a lattice; the layout is described in ``edgeq.formats.blocks.q5_0``."""

from __future__ import annotations

import numpy as np

from edgeq.formats.blocks import q5_0
from edgeq.formats.blocks.base import Bytes
from edgeq.formats.blocks.lattice.base import Lattice, Parts, one_scale, whole
from edgeq.formats.blocks.packing import unpack_fifth_bits, unpack_nibbles

LATTICE = Lattice(whole(-16, 15), 32)


def unpack(blocks: Bytes) -> Parts:
    """See the package."""
    block = blocks.view(q5_0.FIELDS)[:, 0]
    return one_scale(
        block["d"].astype(np.float32), unpack_nibbles(block["qs"]) | unpack_fifth_bits(block["qh"])
    )


def pack(parts: Parts) -> Bytes:
    """See the package."""
    return q5_0.pack(parts.d.astype(np.float16), parts.codes)
