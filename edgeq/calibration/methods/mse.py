"""The range whose 256 codes leave the least squared error."""

from __future__ import annotations

import numpy as np

from edgeq.calibration.methods import method
from edgeq.calibration.ranges import RangeCollector
from edgeq.formats.onnx.int8 import ActivationRange

_STEPS = 64  # ranges tried for each side, from a 64th of what was seen to all of it
_ROUNDS = 3


@method("mse")
def mse(collector: RangeCollector, number: float) -> ActivationRange:
    """Search each side in turn for the bound of least squared error over the histogram."""
    counts, edges = collector.histogram()
    used = counts > 0
    if not used.any():
        return collector.min_max()
    values, weights = ((edges[:-1] + edges[1:]) / 2)[used], counts[used].astype(np.float64)
    # A bin's middle may lie beyond the least or the greatest value, which are exact.
    values = np.clip(values, collector.low, collector.high)
    shares = np.arange(1, _STEPS + 1) / _STEPS
    best = ActivationRange(collector.low, collector.high)
    for _ in range(_ROUNDS):
        highs = [ActivationRange(best.low, collector.high * share) for share in shares]
        best = min(highs, key=lambda interval: _error(interval, values, weights))
        lows = [ActivationRange(collector.low * share, best.high) for share in shares]
        best = min(lows, key=lambda interval: _error(interval, values, weights))
    return best


def _error(interval: ActivationRange, values: np.ndarray, weights: np.ndarray) -> float:
    """Squared error of values with these weights, rounded and clipped to the interval's codes."""
    scale, zero = interval.scale_and_zero_point()
    codes = np.clip(np.rint(values / scale) + zero, 0, 255)
    return float(np.dot(weights, np.square((codes - zero) * scale - values)))
