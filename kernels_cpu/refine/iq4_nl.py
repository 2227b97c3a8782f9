"""Refiner of IQ4_NL: twin of ``edgeq.formats.blocks.refine.iq4_nl``."""

from __future__ import annotations

from edgeq.kernels_cpu.jit import kernel
from edgeq.kernels_cpu.refine.levels import UNEVEN
from edgeq.kernels_cpu.refine.one_scale import refine_nibble_blocks


@kernel
def refine_rows(first, last, values, weights, encoded, search, isa):
    """See the package."""
    refine_nibble_blocks(isa, UNEVEN, first, last, values, weights, encoded, search)
