"""Q8_0 as a lattice; the layout is described in ``edgeq.formats.blocks.q8_0``."""

from __future__ import annotations

import numpy as np

from edgeq.formats.blocks import q8_0
from edgeq.formats.blocks.base import Bytes
from edgeq.formats.blocks.lattice.base import Lattice, Parts, one_scale, whole

LATTICE = Lattice(whole(-127, 127), 32)


def unpack(blocks: Bytes) -> Parts:
    """See the package."""
    block = blocks.view(q8_0.FIELDS)[:, 0]
    return one_scale(block["d"].astype(np.float32), np.maximum(block["qs"].astype(np.int16) + 127, 0))


def pack(parts: Parts) -> Bytes:
    """See the package."""
    return q8_0.pack(parts.d.astype(np.float16), LATTICE.levels[parts.codes])
