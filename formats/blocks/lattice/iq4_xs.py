"""IQ4_XS as a lattice; the layout is described in ``edgeq.formats.blocks.iq4_xs``."""

from __future__ import annotations

import numpy as np

from edgeq.formats.blocks import iq4_xs, nonlinear
from edgeq.formats.blocks.base import Bytes
from edgeq.formats.blocks.lattice.base import Lattice, Parts, scales_only
from edgeq.formats.blocks.packing import unpack_nibbles

LATTICE = Lattice(nonlinear.LEVELS, 32, (-32, 31))


def unpack(blocks: Bytes) -> Parts:
    """See the package."""
    codes = unpack_nibbles(blocks.view(iq4_xs.FIELDS)[:, 0]["qs"])
    return scales_only(*iq4_xs.unpack_scales(blocks), codes)


def pack(parts: Parts) -> Bytes:
    """See the package."""
    scales = (parts.scales + np.float32(32)).astype(np.uint8)
    return iq4_xs.pack(parts.d.astype(np.float16), scales, parts.codes.reshape(-1, 8, 32))
