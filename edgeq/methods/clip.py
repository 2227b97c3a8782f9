"""Clip: the grid's own encoder by importance, then scales searched under each block's own Gram matrix.

Codes are those nearest to the weights: nothing makes up for another's rounding, so less can go wrong where the
calibration text is unlike what comes. ``awq`` rounds so what it scaled.
"""

from __future__ import annotations

from edgeq.formats.blocks.lattice import Parts
from edgeq.methods.base import Floats, Statistics, method
from edgeq.methods.grids import Grid
from edgeq.methods.scale_search import own_grams, search_scales


@method("clip")
def clip(weights: Floats, statistics: Statistics, grid: Grid) -> Parts:
    """Parts in rows."""
    grams = own_grams(statistics.damped(), grid.lattice.sub_values)
    return clipped(weights, statistics.importance(), grams, grid)


def clipped(weights: Floats, importance: Floats, grams: Floats, grid: Grid) -> Parts:
    """The same, given the mean square of each column and the parts of the Gram matrix that sub-blocks read."""
    parts = grid.start(weights, importance)
    search_scales(weights, parts, grid.lattice, grams)
    return parts
