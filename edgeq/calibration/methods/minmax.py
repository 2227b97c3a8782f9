"""Everything that was seen fits in."""

from __future__ import annotations

from edgeq.calibration.methods import method
from edgeq.calibration.ranges import RangeCollector
from edgeq.formats.onnx.int8 import ActivationRange


@method("minmax")
def minmax(collector: RangeCollector, number: float) -> ActivationRange:
    """From the least to the greatest value."""
    return collector.min_max()
