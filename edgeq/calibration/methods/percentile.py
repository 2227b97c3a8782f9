"""Nearly all values fit in."""

from __future__ import annotations

from edgeq.calibration.methods import method
from edgeq.calibration.ranges import RangeCollector
from edgeq.formats.onnx.int8 import ActivationRange


@method("percentile", default=99.99, least=50, most=100)
def percentile(collector: RangeCollector, number: float) -> ActivationRange:
    """The interval of ``number`` per cent of the values, half of the others on each side."""
    return collector.percentile(number)
