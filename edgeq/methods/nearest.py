"""Rounding to nearest: what the grid's own encoder makes of the weights alone."""

from __future__ import annotations

from edgeq.formats.blocks.lattice import Parts
from edgeq.methods.base import Floats, Statistics, method
from edgeq.methods.grids import Grid


@method("nearest")
def nearest(weights: Floats, statistics: Statistics, grid: Grid) -> Parts:
    """Parts in rows of the encoder's blocks."""
    return grid.start(weights, None)
