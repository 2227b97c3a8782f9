"""The mean and some standard deviations around it."""

from __future__ import annotations

import math

from edgeq.calibration.methods import method
from edgeq.calibration.ranges import RangeCollector
from edgeq.formats.onnx.int8 import ActivationRange


@method("mean-std", default=6, least=0, most=1000)
def mean_std(collector: RangeCollector, number: float) -> ActivationRange:
    """``mean ± number · deviation``, within what was seen."""
    if not collector.values:
        return collector.min_max()
    mean = collector.total / collector.values
    reach = number * math.sqrt(max(0.0, collector.squares / collector.values - mean * mean))
    return ActivationRange(max(collector.low, mean - reach), min(collector.high, mean + reach))
