"""Signal to noise, as the views of layers state it."""

from __future__ import annotations

from math import inf
from typing import Any

import numpy as np
from numpy.typing import NDArray


def snr(signal: float, noise: float) -> float:
    """The ratio of two sums of squares in decibels; infinite without noise."""
    return inf if noise == 0 else float(10 * np.log10(signal / noise)) if signal else -inf


def energy(values: NDArray[Any]) -> float:
    """The sum of squares, in float64."""
    return float(np.square(values, dtype=np.float64).sum())
