"""Q4_0 as a lattice; the layout is described in ``edgeq.formats.blocks.q4_0``."""

from __future__ import annotations

import numpy as np

from edgeq.formats.blocks import q4_0
from edgeq.formats.blocks.base import Bytes
from edgeq.formats.blocks.lattice.base import Lattice, Parts, one_scale, whole
from edgeq.formats.blocks.packing import unpack_nibbles

LATTICE = Lattice(whole(-8, 7), 32)


def unpack(blocks: Bytes) -> Parts:
    """See the package."""
    block = blocks.view(q4_0.FIELDS)[:, 0]
    return one_scale(block["d"].astype(np.float32), unpack_nibbles(block["qs"]))


def pack(parts: Parts) -> Bytes:
    """See the package."""
    return q4_0.pack(parts.d.astype(np.float16), parts.codes)
