"""IQ4_NL for products: ``edgeq.formats.blocks.iq4_nl``."""

from __future__ import annotations

from edgeq.formats.blocks.base import Bytes
from edgeq.formats.blocks.iq4_nl import FIELDS
from edgeq.formats.blocks.nonlinear import LEVELS
from edgeq.kernels_cpu.products.fields import Fields, Plane, Stored
from edgeq.kernels_cpu.products.layout import Format

FORMAT = Format("IQ4_NL", 32, (4,), "Q8_0", bias=128, levels=tuple(int(level) for level in LEVELS))
STORED = Stored((Plane(2, 4, 16),))


def fields(blocks: Bytes) -> Fields:
    """Of uint8 ``[n, block_bytes]``."""
    block = blocks.view(FIELDS)[:, 0]
    return Fields(block["d"])
