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


class RangeCollector:
    """Statistics of one activation ``[..., C]``: extremes, channel maxima, and a histogram that widens as it must."""

    def __init__(self) -> None:
        self.low = 0.0
        self.high = 0.0
        self.channel_max: NDArray[np.float32] = np.zeros(0, np.float32)
        self.samples = 0
        self._counts = np.zeros(_BINS, np.int64)
        self._limit = 0.0  # the histogram covers [-limit, limit]
        self._peaks = np.zeros(8 * _OCTAVES, np.int64)  # samples by log2 of their peak, in steps of 1/4

    def add(self, values: NDArray[np.float32]) -> None:
        """Take one sample in; non-finite and mask values are left out."""
        usable = np.isfinite(values) & (np.abs(values) < _LARGEST)
        if not usable.any():
            return
        values = np.where(usable, values, 0) if not usable.all() else values
        magnitude = np.abs(values).reshape(-1, values.shape[-1]).max(axis=0)
        if not self.channel_max.size:
            self.channel_max = np.zeros_like(magnitude)
        self.channel_max = np.maximum(self.channel_max, magnitude)
        self.low, self.high = min(self.low, float(values.min())), max(self.high, float(values.max()))
        self.samples += 1
        peak = float(magnitude.max())
        self._peaks[_peak_bin(peak)] += 1
        self._widen(peak)
        counts, _ = np.histogram(values[usable], bins=_BINS, range=(-self._limit, self._limit))
        self._counts += counts

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

    def min_max(self) -> ActivationRange:
        """The interval of everything seen."""
        return ActivationRange(self.low, self.high)

    def percentile(self, percent: float) -> ActivationRange:
        """The interval that leaves ``100 - percent`` per cent of the values out, half at each end."""
        if not 50 < percent <= 100:
            raise InputError(f"percentile {percent:g} must be above 50 and at most 100")
        total = self._counts.cumsum()
        if not total[-1]:
            return self.min_max()
        edges = np.linspace(-self._limit, self._limit, _BINS + 1)
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
