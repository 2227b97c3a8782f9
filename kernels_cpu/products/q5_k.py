"""Q5_K for products: ``edgeq.formats.blocks.q5_k``."""

from __future__ import annotations

from edgeq.formats.blocks.base import Bytes
from edgeq.formats.blocks.packing import unpack_scales_and_mins
from edgeq.formats.blocks.q5_k import FIELDS
from edgeq.kernels_cpu.products.fields import Fields, Plane, Stored
from edgeq.kernels_cpu.products.layout import Format

FORMAT = Format("Q5_K", 256, (4, 1), "Q8_K", sub=32, correction="mins")
STORED = Stored((Plane(48, 4, 32), Plane(16, 1, 32)))


def fields(blocks: Bytes) -> Fields:
    """Of uint8 ``[n, block_bytes]``."""
    block = blocks.view(FIELDS)[:, 0]
    scales, mins = unpack_scales_and_mins(block["scales"])
    return Fields(block["d"], scales, mins, block["dmin"])
