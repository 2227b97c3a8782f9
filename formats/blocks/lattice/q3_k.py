"""Q3_K as a lattice; the layout is described in ``edgeq.formats.blocks.q3_k``."""

from __future__ import annotations

import numpy as np

from edgeq.formats.blocks import q3_k
from edgeq.formats.blocks.base import Bytes
from edgeq.formats.blocks.lattice.base import Lattice, Parts, scales_only, whole

LATTICE = Lattice(whole(-4, 3), 16, (-32, 31))


def unpack(blocks: Bytes) -> Parts:
    """See the package."""
    return scales_only(*q3_k.unpack_scales(blocks), q3_k.unpack_codes(blocks.view(q3_k.FIELDS)[:, 0]))


def pack(parts: Parts) -> Bytes:
    """See the package."""
    scales = (parts.scales + np.float32(32)).astype(np.uint8)
    return q3_k.pack(parts.d.astype(np.float16), scales, parts.codes.reshape(-1, 16, 16))
