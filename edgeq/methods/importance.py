"""Importance: the grid's own encoder, errors weighed by the mean square of each column's input.

That is what llama.cpp does with an importance matrix (``quantize_*_impl`` in ``ggml/src/ggml-quants.c``).
"""

from __future__ import annotations

from edgeq.formats.blocks.lattice import Parts
from edgeq.methods.base import Floats, Statistics, method
from edgeq.methods.grids import Grid


@method("importance")
def importance(weights: Floats, statistics: Statistics, grid: Grid) -> Parts:
    """Parts in rows of the encoder's blocks."""
    return grid.start(weights, statistics.importance())
