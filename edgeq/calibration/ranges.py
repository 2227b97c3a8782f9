"""Activation statistics collected in a stream: memory does not grow with the number of samples."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeq.errors import InputError
from edgeq.formats.onnx.int8 import ActivationRange

# Masks (-1e9, -3.4e38) and infinities say nothing about a range.
_LARGEST = np.float32(1e8)
_SMALLEST = 1e-30  # a histogram of less would have bins below float32's normal numbers
_BINS = 4096
_OCTAVES = 32  # peaks are counted from 2^-32 to 2^32, which is beyond _LARGEST
_LANES = 1024  # columns of a value without channels: what is side by side is swept together
_MOMENTUM = 0.01  # weight of a new sample in the moving averages, as in ONNX Runtime's calibrator


_NUMBERS = ("low", "high", "average_low", "average_high", "values", "total", "squares", "samples", "_limit")


class RangeCollector:
    """Statistics of one activation: extremes, their moving averages, moments, and a histogram that widens as it must.

    ``channels`` says which axis is one of channels (-1 of a linear layer's input, -3 of a picture's), whose largest
    magnitudes and sums are kept, too; None: there is none.
    """

    def __init__(self, channels: int | None = -1) -> None:
        self.channels = channels
        self.low = 0.0
        self.high = 0.0
        self.average_low = 0.0
        self.average_high = 0.0
        self.values = 0
        self.total = 0.0
        self.squares = 0.0
        self.channel_max: NDArray[np.float32] = np.zeros(0, np.float32)
        self.channel_total: NDArray[np.float64] = np.zeros(0)
        self.samples = 0
        self._counts = np.zeros(_BINS, np.int64)
        self._limit = 0.0  # the histogram covers [-limit, limit]
        self._peaks = np.zeros(8 * _OCTAVES, np.int64)  # samples by log2 of their peak, in steps of 1/4
        self._taken = 0  # samples given
        self._turn = 0  # the first of them that has not been counted
        self._waiting: dict[int, tuple[float, float, int]] = {}  # low, high and values of those after it

    def add(
        self,
        values: NDArray[np.float32],
        ends: NDArray[np.int64] | None = None,
        numbers: Sequence[int] | None = None,
    ) -> None:
        """Take samples in, one after the other in ``values``; non-finite and mask values are left out.

        ``ends`` says before which of the values, counted in their order in memory, each sample ends (None: they are one
        sample), ``numbers`` which samples these are, from 0, where they do not come in order.
        """
        from edgeq.kernels_cpu.ranges import extremes, histogram  # Numba, which a float export does without

        flat = np.require(values, np.float32, ["C", "W"]).reshape(-1)
        ends = np.array([flat.size]) if ends is None else ends
        numbers = range(self._taken, self._taken + len(ends)) if numbers is None else numbers
        self._taken += len(ends)
        columns, inner = self._layout(values.shape)
        columns = columns if flat.size else 1
        lows, highs = np.zeros((2, len(ends), columns), np.float32)
        totals, squares = np.zeros((2, columns))
        counts = np.zeros(len(ends), np.int64)
        extremes(flat, ends, inner, _LARGEST, lows, highs, totals, squares, counts)  # type: ignore[no-untyped-call]
        found = list(zip(lows.min(axis=1).tolist(), highs.max(axis=1).tolist(), counts.tolist(), strict=True))
        self._waiting.update(zip(numbers, found, strict=True))
        self._in_order()
        if not counts.any():
            return
        self.values += int(counts.sum())
        self.total += float(totals.sum())
        self.squares += float(squares.sum())
        if self.channels is not None:
            self._per_channel(np.maximum(-lows.min(axis=0), highs.max(axis=0)), totals)
        self._widen(max(-float(lows.min()), float(highs.max())))
        histogram(flat, _LARGEST, self._limit, self._counts)  # type: ignore[no-untyped-call]

    def fresh(self) -> RangeCollector:
        """One like this that has seen nothing."""
        return RangeCollector(self.channels)

    def finish(self) -> None:
        """All samples were given; the next one would be the first of another pass."""
        self._taken = self._turn = 0

    def state(self) -> dict[str, NDArray[Any]]:
        """All that was seen, by name: numbers, counts, and what there is of each channel."""
        numbers = [float(getattr(self, name)) for name in _NUMBERS]
        return {
            "numbers": np.array(numbers),
            "counts": self._counts,
            "peaks": self._peaks,
            "channel_max": self.channel_max,
            "channel_total": self.channel_total,
        }

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Become the collector whose ``state`` this is; raises ValueError or KeyError for anything else."""
        own = self.state()
        for name in ("numbers", "counts", "peaks"):
            if state[name].shape != own[name].shape:
                raise ValueError(f"{name} has the shape {state[name].shape}")
        for name, number in zip(_NUMBERS, state["numbers"].tolist(), strict=True):
            setattr(self, name, int(number) if name in ("values", "samples") else number)
        self._counts[:], self._peaks[:] = state["counts"], state["peaks"]
        self.channel_max = state["channel_max"].astype(np.float32)
        self.channel_total = state["channel_total"].astype(np.float64)

    def _layout(self, shape: tuple[int, ...]) -> tuple[int, int]:
        """(columns, how many values of one stand next to each other)."""
        if self.channels is None or not -len(shape) <= self.channels < len(shape):
            return _LANES, 1
        axis = self.channels % len(shape)
        return shape[axis], math.prod(shape[axis + 1 :])

    def _per_channel(self, largest: NDArray[np.float32], totals: NDArray[np.float64]) -> None:
        if not self.channel_max.size:
            self.channel_max, self.channel_total = np.zeros_like(largest), np.zeros_like(totals)
        self.channel_max = np.maximum(self.channel_max, largest)
        self.channel_total += totals

    @property
    def channel_mean(self) -> NDArray[np.float64]:
        """The mean of each channel, float64 ``[channels]``; nothing where there are none."""
        return self.channel_total / max(1.0, self.values / max(1, len(self.channel_total)))

    def _in_order(self) -> None:
        """Count the samples whose turn it is: a moving average is one of samples as they came."""
        while (found := self._waiting.pop(self._turn, None)) is not None:
            self._turn += 1
            low, high, count = found
            if count:
                self._extremes(low, high)

    def _extremes(self, low: float, high: float) -> None:
        self.low, self.high = min(self.low, low), max(self.high, high)
        share = _MOMENTUM if self.samples else 1.0
        self.average_low += share * (low - self.average_low)
        self.average_high += share * (high - self.average_high)
        self._peaks[_peak_bin(max(-low, high))] += 1
        self.samples += 1

    def _widen(self, peak: float) -> None:
        """Double the histogram's range until it holds ``peak``; two old bins become one new bin."""
        if not self._limit:
            self._limit = max(peak, _SMALLEST)
        while self._limit < peak:
            merged = self._counts.reshape(-1, 2).sum(axis=1)
            self._counts[:] = 0
            quarter = _BINS // 4
            self._counts[quarter:-quarter] = merged
            self._limit *= 2

    def histogram(self) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """(counts ``[4096]``, edges ``[4097]``) of everything seen, even bins around 0."""
        return self._counts, np.linspace(-self._limit, self._limit, _BINS + 1)

    def min_max(self) -> ActivationRange:
        """The interval of everything seen."""
        return ActivationRange(self.low, self.high)

    def percentile(self, percent: float) -> ActivationRange:
        """The interval that leaves ``100 - percent`` per cent of the values out, half at each end."""
        if not 50 < percent <= 100:
            raise InputError(f"percentile {percent:g} must be above 50 and at most 100")
        total = self._counts.cumsum()
        if percent == 100 or not total[-1]:
            return self.min_max()
        _, edges = self.histogram()
        tail = (100 - percent) / 200 * total[-1]
        first = int(np.searchsorted(total, tail, side="right"))
        last = int(np.searchsorted(total, total[-1] - tail, side="left"))
        return ActivationRange(max(self.low, edges[first]), min(self.high, edges[last + 1]))

    def peak_ratio(self) -> float:
        """The largest magnitude over the median of the samples' own largest magnitudes.

        Near 1: every sample fills the range. Well above 1: few samples set it, so others waste codes, and a text
        not seen here may go beyond it.
        """
        if not self.samples:
            return 1.0
        median_bin = int(np.searchsorted(self._peaks.cumsum(), (self.samples + 1) // 2))
        return float(max(-self.low, self.high) / 2 ** ((median_bin + 0.5) / 4 - _OCTAVES))


def _peak_bin(peak: float) -> int:
    place = math.floor((math.log2(max(peak, _SMALLEST)) + _OCTAVES) * 4)
    return min(max(place, 0), 8 * _OCTAVES - 1)
