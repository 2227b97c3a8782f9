"""Q5_0 for products: ``edgeq.formats.blocks.q5_0``."""

from __future__ import annotations

from edgeq.formats.blocks.base import Bytes
from edgeq.formats.blocks.q5_0 import FIELDS
from edgeq.kernels_cpu.products.fields import Fields, Plane, Stored
from edgeq.kernels_cpu.products.layout import Format

FORMAT = Format("Q5_0", 32, (4, 1), "Q8_0", bias=16)
STORED = Stored((Plane(6, 4, 16), Plane(2, 1, 1)))


def fields(blocks: Bytes) -> Fields:
    """Of uint8 ``[n, block_bytes]``."""
    block = blocks.view(FIELDS)[:, 0]
    return Fields(block["d"])
