"""Q3_K for products: ``edgeq.formats.blocks.q3_k``."""

from __future__ import annotations

from edgeq.formats.blocks.base import Bytes
from edgeq.formats.blocks.q3_k import FIELDS, unpack_scale_codes
from edgeq.kernels_cpu.products.fields import Fields, Plane, Stored
from edgeq.kernels_cpu.products.layout import Format

FORMAT = Format("Q3_K", 256, (2, 1), "Q8_K", sub=16, signed_scales=True, bias=4)
STORED = Stored((Plane(32, 2, 32), Plane(0, 1, 32)))


def fields(blocks: Bytes) -> Fields:
    """Of uint8 ``[n, block_bytes]``."""
    block = blocks.view(FIELDS)[:, 0]
    return Fields(block["d"], unpack_scale_codes(block))
