"""Q5_K as a lattice; the layout is described in ``edgeq.formats.blocks.q5_k``."""

from __future__ import annotations

from edgeq.formats.blocks import q5_k
from edgeq.formats.blocks.base import Bytes
from edgeq.formats.blocks.lattice import six_bit_scales
from edgeq.formats.blocks.lattice.base import Parts

LATTICE = six_bit_scales.lattice(31)


def unpack(blocks: Bytes) -> Parts:
    """See the package."""
    block = blocks.view(q5_k.FIELDS)[:, 0]
    return six_bit_scales.unpack(block, q5_k.unpack_codes(block))


def pack(parts: Parts) -> Bytes:
    """See the package."""
    return six_bit_scales.pack(parts, q5_k.assemble)
