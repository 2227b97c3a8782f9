"""Q4_1 for products: ``edgeq.formats.blocks.q4_1``."""

from __future__ import annotations

from edgeq.formats.blocks.base import Bytes
from edgeq.formats.blocks.q4_1 import FIELDS
from edgeq.kernels_cpu.products.fields import Fields, Plane, Stored
from edgeq.kernels_cpu.products.layout import Format

FORMAT = Format("Q4_1", 32, (4,), "Q8_1", correction="floats")
STORED = Stored((Plane(4, 4, 16),))


def fields(blocks: Bytes) -> Fields:
    """Of uint8 ``[n, block_bytes]``."""
    block = blocks.view(FIELDS)[:, 0]
    return Fields(block["d"], second=block["m"])
