"""Ranges of values as they will be after SmoothQuant, from the graph before it: one pass over the samples is enough.

What is smoothed is divided by a constant for each channel, and nothing else in the graph changes. The constants come
from what the first samples hold, which is kept until then.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgeq.calibration.ranges import RangeCollector
from edgeq.formats.onnx.passes.smooth import Smoothing, smooth

SMOOTHING_SAMPLES = 128  # the largest magnitude of a channel is soon found, and only its root counts
_KEPT_BYTES = 48 << 20  # of all values together

Floats = NDArray[np.float32]
Scales = Callable[[Floats], Floats | None]
Observe = Callable[[Mapping[ir.Value, Scales]], dict[str, RangeCollector]]


class SmoothedCollector(RangeCollector):
    """Statistics of a value ``[…, channels]`` divided by what ``scales`` makes of its channels' largest magnitudes.

    ``seen`` holds these magnitudes. What comes first is kept, at most about ``room`` bytes of it.
    """

    def __init__(self, scales: Scales, room: int) -> None:
        super().__init__()
        self.seen: Floats = np.zeros(0, np.float32)
        self._find = scales
        self._scales: Floats | None = None
        self._first: RangeCollector | None = RangeCollector()
        self._kept: list[tuple[Floats, NDArray[np.int64] | None, Sequence[int] | None]] = []
        self._room = room

    def fresh(self) -> SmoothedCollector:
        """One like this that has seen nothing."""
        return SmoothedCollector(self._find, self._room)

    def add(
        self, values: Floats, ends: NDArray[np.int64] | None = None, numbers: Sequence[int] | None = None
    ) -> None:
        """As ``RangeCollector.add``."""
        if self._first is None:
            with np.errstate(over="ignore"):  # a mask
                super().add(values if self._scales is None else values / self._scales, ends, numbers)
            return
        self._first.add(values, ends, numbers)
        self._kept.append((values.copy(), ends, numbers))
        if (
            self._first.samples >= SMOOTHING_SAMPLES
            or sum(kept.nbytes for kept, _, _ in self._kept) >= self._room
        ):
            self._decide()

    def finish(self) -> None:
        """As ``RangeCollector.finish``."""
        if self._first is not None:
            self._decide()
        super().finish()

    def _decide(self) -> None:
        """Find the scales, and take in what was kept."""
        assert self._first is not None
        self.seen, self._first = self._first.channel_max, None
        self._scales = self._find(self.seen)
        kept, self._kept = self._kept, []
        for each in kept:
            self.add(*each)

    def state(self) -> dict[str, NDArray[Any]]:
        """As ``RangeCollector.state``, with what was smoothed by."""
        return super().state() | {"seen": self.seen}

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """As ``RangeCollector.restore``."""
        super().restore(state)
        self.seen, self._first = state["seen"].astype(np.float32), None


def smoothed_collectors(scales: Mapping[ir.Value, Scales]) -> dict[ir.Value, SmoothedCollector]:
    """A collector for each value, which share the memory."""
    return {value: SmoothedCollector(each, _KEPT_BYTES // len(scales)) for value, each in scales.items()}


def smooth_and_observe(
    model: ir.Model, smoothings: Sequence[Smoothing], observe: Observe
) -> dict[str, RangeCollector]:
    """Fold these smoothings into the graph; what ``observe`` found, under the names that values have then."""
    found = observe({smoothing.value: smoothing.scales for smoothing in smoothings})
    old = {smoothing: str(smoothing.value.name) for smoothing in smoothings}
    smooth(model, {name: c.seen for name, c in found.items() if isinstance(c, SmoothedCollector)})
    collectors = [(smoothing, found.pop(name)) for smoothing, name in old.items() if name in found]
    return found | {str(smoothing.read_now.name): collector for smoothing, collector in collectors}
