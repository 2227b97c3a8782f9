"""GPTQ (Frantar et al. 2022, arXiv:2210.17323): scales by importance, then codes by error feedback.

Columns of large inputs come first (activation order), which costs nothing on a grid whose scales are chosen before.
"""

from __future__ import annotations

from edgeq.formats.blocks.lattice import Parts
from edgeq.methods.base import Floats, Statistics, method
from edgeq.methods.grids import Grid


@method("gptq")
def gptq(weights: Floats, statistics: Statistics, grid: Grid) -> Parts:
    """Parts in rows; the Gram matrix is damped by a tenth of its mean diagonal."""
    from edgeq.kernels_cpu.gram import round_by_feedback

    parts = grid.start(weights, statistics.importance())
    round_by_feedback(weights, parts, grid.lattice, statistics.factor())
    return parts
