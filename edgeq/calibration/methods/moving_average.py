"""What a usual sample reaches, with the last samples weighing most."""

from __future__ import annotations

from edgeq.calibration.methods import method
from edgeq.calibration.ranges import RangeCollector
from edgeq.formats.onnx.int8 import ActivationRange


@method("moving-average")
def moving_average(collector: RangeCollector, number: float) -> ActivationRange:
    """The moving averages of the samples' least and greatest values; a new sample weighs 1 %."""
    return ActivationRange(collector.average_low, collector.average_high)
