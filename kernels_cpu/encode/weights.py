"""Weights under importance, for one block at a time and in its order."""

from __future__ import annotations

import numpy as np

from edgeq.kernels_cpu.jit import helper
from edgeq.kernels_cpu.scalar import ZERO


@helper
def row_mean_square(row):
    """Mean square in the order of the row (``sigma2`` of ``quantize_row_q4_0_impl``)."""
    total = ZERO
    for value in row:
        total += value * value
    return total / np.float32(row.size)


@helper
def importance_weights(x, importance, mean_square, weights):
    """weights = importance · √(mean square + x²)."""
    for i in range(x.size):
        weights[i] = importance[i] * np.sqrt(mean_square + x[i] * x[i])
