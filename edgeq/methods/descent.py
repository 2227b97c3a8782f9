"""GPTQ, then coordinate descent on codes, scales and minimums, all as the type stores them.

Of the Gram-weighted error that GPTQ leaves, it takes away 6 to 15 per cent (LOG.md); of the KL more
(``benchmarks/methods.py``).
"""

from __future__ import annotations

from edgeq.formats.blocks.lattice import Parts
from edgeq.methods.base import Floats, Statistics, method
from edgeq.methods.gptq import gptq
from edgeq.methods.grids import Grid


@method("descent")
def descent(weights: Floats, statistics: Statistics, grid: Grid) -> Parts:
    """Parts in rows."""
    from edgeq.kernels_cpu.gram import descend

    parts = gptq(weights, statistics, grid)
    descend(weights, parts, grid.lattice, statistics.damped())
    return parts
