"""Q6_K as a lattice; the layout is described in ``edgeq.formats.blocks.q6_k``."""

from __future__ import annotations

import numpy as np

from edgeq.formats.blocks import q6_k
from edgeq.formats.blocks.base import Bytes
from edgeq.formats.blocks.lattice.base import Lattice, Parts, scales_only, whole

LATTICE = Lattice(whole(-32, 31), 16, (-128, 127))


def unpack(blocks: Bytes) -> Parts:
    """See the package."""
    return scales_only(*q6_k.unpack_scales(blocks), q6_k.unpack_codes(blocks.view(q6_k.FIELDS)[:, 0]))


def pack(parts: Parts) -> Bytes:
    """See the package."""
    codes = parts.codes.reshape(-1, 16, 16)
    return q6_k.pack(parts.d.astype(np.float16), parts.scales.astype(np.int8), codes)
