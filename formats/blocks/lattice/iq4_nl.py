"""IQ4_NL as a lattice; the layout is described in ``edgeq.formats.blocks.iq4_nl``."""

from __future__ import annotations

import numpy as np

from edgeq.formats.blocks import iq4_nl, nonlinear
from edgeq.formats.blocks.base import Bytes
from edgeq.formats.blocks.lattice.base import Lattice, Parts, one_scale
from edgeq.formats.blocks.packing import unpack_nibbles

LATTICE = Lattice(nonlinear.LEVELS, 32)


def unpack(blocks: Bytes) -> Parts:
    """See the package."""
    block = blocks.view(iq4_nl.FIELDS)[:, 0]
    return one_scale(block["d"].astype(np.float32), unpack_nibbles(block["qs"]))


def pack(parts: Parts) -> Bytes:
    """See the package."""
    return iq4_nl.pack(parts.d.astype(np.float16), parts.codes)
