"""Q6_K for products: ``edgeq.formats.blocks.q6_k``."""

from __future__ import annotations

from edgeq.formats.blocks.base import Bytes
from edgeq.formats.blocks.q6_k import FIELDS
from edgeq.kernels_cpu.products.fields import Fields, Plane, Stored
from edgeq.kernels_cpu.products.layout import Format

FORMAT = Format("Q6_K", 256, (4, 2), "Q8_K", sub=16, signed_scales=True, bias=32)
STORED = Stored((Plane(0, 4, 64), Plane(128, 2, 32)))


def fields(blocks: Bytes) -> Fields:
    """Of uint8 ``[n, block_bytes]``."""
    block = blocks.view(FIELDS)[:, 0]
    return Fields(block["d"], block["scales"])
