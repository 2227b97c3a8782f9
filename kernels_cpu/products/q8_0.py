"""Q8_0 for products: ``edgeq.formats.blocks.q8_0``."""

from __future__ import annotations

from edgeq.formats.blocks.base import Bytes
from edgeq.formats.blocks.q8_0 import FIELDS
from edgeq.kernels_cpu.products.fields import Fields, Plane, Stored
from edgeq.kernels_cpu.products.layout import Format

FORMAT = Format("Q8_0", 32, (8,), "Q8_0", bias=128, signed_bytes=True)
STORED = Stored((Plane(2, 8, 32),), flip=128)


def fields(blocks: Bytes) -> Fields:
    """Of uint8 ``[n, block_bytes]``."""
    block = blocks.view(FIELDS)[:, 0]
    return Fields(block["d"])
