"""Q2_K for products: ``edgeq.formats.blocks.q2_k``."""

from __future__ import annotations

from edgeq.formats.blocks.base import Bytes
from edgeq.formats.blocks.q2_k import FIELDS
from edgeq.kernels_cpu.products.fields import Fields, Plane, Stored
from edgeq.kernels_cpu.products.layout import Format

FORMAT = Format("Q2_K", 256, (2,), "Q8_K", sub=16, correction="mins")
STORED = Stored((Plane(16, 2, 32),))


def fields(blocks: Bytes) -> Fields:
    """Of uint8 ``[n, block_bytes]``."""
    block = blocks.view(FIELDS)[:, 0]
    scales, mins = block["scales"] & 15, block["scales"] >> 4
    return Fields(block["d"], scales, mins, block["dmin"])
