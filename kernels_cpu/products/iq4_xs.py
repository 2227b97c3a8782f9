"""IQ4_XS for products: ``edgeq.formats.blocks.iq4_xs``."""

from __future__ import annotations

from edgeq.formats.blocks.base import Bytes
from edgeq.formats.blocks.iq4_xs import FIELDS, unpack_scale_codes
from edgeq.formats.blocks.nonlinear import LEVELS
from edgeq.kernels_cpu.products.fields import Fields, Plane, Stored
from edgeq.kernels_cpu.products.layout import Format

FORMAT = Format(
    "IQ4_XS",
    256,
    (4,),
    "Q8_K",
    sub=32,
    signed_scales=True,
    bias=128,
    levels=tuple(int(level) for level in LEVELS),
)
STORED = Stored((Plane(8, 4, 16),))


def fields(blocks: Bytes) -> Fields:
    """Of uint8 ``[n, block_bytes]``."""
    block = blocks.view(FIELDS)[:, 0]
    return Fields(block["d"], unpack_scale_codes(block))
