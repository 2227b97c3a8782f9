"""Refiner of Q4_0: twin of ``edgeq.formats.blocks.refine.q4_0``."""

from __future__ import annotations

from edgeq.kernels_cpu.jit import kernel
from edgeq.kernels_cpu.refine.levels import uniform
from edgeq.kernels_cpu.refine.one_scale import refine_nibble_blocks

_LEVELS = uniform(-8, 7, -8)


@kernel
def refine_rows(first, last, values, weights, encoded, search, isa):
    """See the package."""
    refine_nibble_blocks(isa, _LEVELS, first, last, values, weights, encoded, search)
