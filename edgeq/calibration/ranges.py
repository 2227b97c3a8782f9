"""Activation statistics collected in a stream: memory does not grow with the number of samples."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgeq.errors import InputError
from edgeq.formats.onnx.int8 import ActivationRange

# Masks (-1e9, -3.4e38) and infinities say nothing about a range.
_LARGEST = 1e8
_SMALLEST = 1e-30  # a histogram of less would have bins below float32's normal numbers
_BINS = 4096
_OCTAVES = 32  # peaks are counted from 2^-32 to 2^32, which is beyond _LARGEST
_MOMENTUM = 0.01  # weight of a new sample in the moving averages, as in ONNX Runtime's calibrator


class RangeCollector:
    """Statistics of one activation: extremes, their moving averages, moments, and a histogram that widens as it must.

    ``channels`` says that the last axis is one of channels, whose largest magnitudes are kept, too.
    """

    def __init__(self, channels: bool = True) -> None:
        self.low = 0.0
        self.high = 0.0
        self.average_low = 0.0
        self.average_high = 0.0
        self.values = 0
        self.total = 0.0
        self.squares = 0.0
        self.channel_max: NDArray[np.float32] = np.zeros(0, np.float32)
        self.samples = 0
        self._channels = channels
        self._counts = np.zeros(_BINS, np.int64)
        self._limit = 0.0  # the histogram covers [-limit, limit]
        self._peaks = np.zeros(8 * _OCTAVES, np.int64)  # samples by log2 of their peak, in steps of 1/4

    def add(self, values: NDArray[np.float32]) -> None:
        """Take one sample in; non-finite and mask values are left out."""
        magnitudes = np.abs(values)
        usable = magnitudes < _LARGEST  # false for NaN
        if not usable.any():
            return
        kept = values.reshape(-1)
        if not usable.all():
            kept = values[usable]
            values, magnitudes = np.where(usable, values, 0), np.where(usable, magnitudes, 0)
        if self._channels:
            largest = magnitudes.reshape(-1, values.shape[-1]).max(axis=0)
            if not self.channel_max.size:
                self.channel_max = np.zeros_like(largest)
            self.channel_max = np.maximum(self.channel_max, largest)
        low, high = min(float(values.min()), 0.0), max(float(values.max()), 0.0)
        self._extremes(low, high)
        self.values += kept.size
        self.total += float(kept.sum(dtype=np.float64))
        self.squares += float(np.square(kept, dtype=np.float64).sum())
        peak = max(-low, high)
        self._peaks[_peak_bin(peak)] += 1
        self._widen(peak)
        self._count(kept)

    def _extremes(self, low: float, high: float) -> None:
        self.low, self.high = min(self.low, low), max(self.high, high)
        share = _MOMENTUM if self.samples else 1.0
        self.average_low += share * (low - self.average_low)
        self.average_high += share * (high - self.average_high)
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

    def _count(self, values: NDArray[np.float32]) -> None:
        scaled = values * np.float64(_BINS / 2 / self._limit) + np.float64(_BINS / 2)
        places = np.minimum(scaled.astype(np.int32), _BINS - 1)
        self._counts += np.bincount(places, minlength=_BINS)

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
    return int(np.clip(np.floor((np.log2(max(peak, _SMALLEST)) + _OCTAVES) * 4), 0, 8 * _OCTAVES - 1))
