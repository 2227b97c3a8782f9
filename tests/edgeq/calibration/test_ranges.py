"""Activation statistics in a stream, against NumPy over everything at once."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from onnx_graphs import f32

from edgeq.calibration.ranges import RangeCollector
from edgeq.errors import InputError

Floats = NDArray[np.float32]


def collect(*samples: Floats) -> RangeCollector:
    collector = RangeCollector()
    for sample in samples:
        collector.add(sample)
    return collector


def normal(seed: int, *shape: int) -> Floats:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def test_min_max_and_channel_max() -> None:
    samples = [normal(i, 2, 5, 4) * f32([1, 2, 3, 0]) for i in range(7)]
    collector = collect(*samples)
    everything = np.concatenate(samples)
    assert collector.min_max().low == everything.min()
    assert collector.min_max().high == everything.max()
    assert collector.samples == 7
    np.testing.assert_array_equal(collector.channel_max, np.abs(everything).max(axis=(0, 1)))


def test_an_interval_always_holds_zero() -> None:
    assert (collect(f32([[5, 6]])).low, collect(f32([[-6, -5]])).high) == (0, 0)


@pytest.mark.parametrize("percent", [60, 90, 99, 99.9, 100])
@pytest.mark.parametrize("order", [1, -1])
def test_percentile_is_numpys_within_a_bin(percent: float, order: int) -> None:
    samples = [normal(i, 200, 16) * np.float32(2.0**i) for i in range(6)][
        ::order
    ]  # widens five times, or never
    got = collect(*samples).percentile(percent)
    everything = np.concatenate(samples)
    tails = [(100 - percent) / 2, (100 + percent) / 2]
    # NumPy would interpolate between two values; in a thin tail they are many bins apart.
    below, above = (np.percentile(everything, tails, method=method) for method in ("lower", "higher"))
    one_bin = 4 * float(np.abs(everything).max()) / 4096  # the histogram may reach twice as far as the values
    assert below[0] - one_bin <= got.low <= above[0] + one_bin
    assert below[1] - one_bin <= got.high <= above[1] + one_bin


@settings(max_examples=60, deadline=None)
@given(
    st.lists(hnp.arrays(np.float32, (3, 4), elements=st.floats(-1e6, 1e6, width=32)), min_size=1, max_size=6),
    st.floats(51, 100),
)
def test_percentile_bounds(samples: list[Floats], percent: float) -> None:
    collector = collect(*samples)
    got, everything = collector.percentile(percent), np.concatenate(samples)
    assert collector.low <= got.low <= got.high <= collector.high
    rounding = 1e-9 * np.abs(everything).max()  # a value may fall into a bin that begins next to it
    inside = np.count_nonzero((everything >= got.low - rounding) & (everything <= got.high + rounding))
    # Half of a tail is left out at each end, and what shares a bin with the end stays in.
    assert inside >= np.floor(percent / 100 * everything.size) - 2
    full = collector.percentile(100)
    assert (min(full.low, 0), max(full.high, 0)) == (collector.low, collector.high)


def test_widening_counts_every_value_in_any_order() -> None:
    sizes = [1e-6, 0, 1e3, 1e-40, 1, 1e7]
    samples = [np.full((1, 4), size, np.float32) for size in sizes]
    for arranged in (samples, samples[::-1]):
        collector = collect(*arranged)
        assert collector._counts.sum() == 24
        assert collector.percentile(100).high == np.float32(1e7)
        assert collector.percentile(60).high < 1e4


def test_zeros_before_the_first_value_count() -> None:
    zeros, ones = np.zeros((1, 99), np.float32), np.ones((1, 99), np.float32)
    for samples in ([zeros, zeros, zeros, ones], [ones, zeros, zeros, zeros]):
        assert collect(*samples).percentile(52).high == pytest.approx(
            1, abs=1e-3
        )  # 24 % are left out, 25 % are ones


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, -3.4e38, -1e9, 1e8, 3.4e38])
def test_non_finite_and_mask_values_are_left_out(bad: float) -> None:
    clean = normal(1, 6, 4)
    dirty = np.concatenate([clean, np.full((2, 4), bad, np.float32)])
    dirty[7, 1] = 0.5
    a, b = collect(dirty), collect(np.concatenate([clean, f32([[0.5, 0, 0, 0]])]))
    assert (a.low, a.high) == (b.low, b.high)
    np.testing.assert_array_equal(a.channel_max, np.abs(clean).max(axis=0))
    assert a._counts.sum() == clean.size + 1
    assert a.peak_ratio() == b.peak_ratio()


def test_a_sample_of_masks_only_is_no_sample() -> None:
    collector = collect(np.full((3, 4), -3.4e38, np.float32), np.full((3, 4), np.nan, np.float32))
    assert collector.samples == 0
    assert (collector.low, collector.high, collector.channel_max.size) == (0, 0, 0)


def test_nothing_seen() -> None:
    for collector in (RangeCollector(), collect(np.zeros((0, 4), np.float32))):
        assert (collector.min_max().low, collector.min_max().high) == (0, 0)
        assert (collector.percentile(99).low, collector.percentile(99).high) == (0, 0)
        assert collector.peak_ratio() == 1
        assert collector.channel_max.size == 0


def test_zeros_only() -> None:
    collector = collect(np.zeros((3, 4), np.float32))
    assert (collector.percentile(99).low, collector.percentile(99).high) == (0, 0)
    assert collector.channel_max.tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("size", [1e-45, 1e-38, 1e-30, 1e-5, 1, 9e7])
def test_any_size(size: float) -> None:
    collector = collect(*(normal(i, 10, 4) * np.float32(size / 8) for i in range(3)))
    assert collector.percentile(99).high <= collector.high


@pytest.mark.parametrize("percent", [-1, 0, 50, 100.001, float("nan"), float("inf")])
def test_percentile_out_of_range(percent: float) -> None:
    with pytest.raises(InputError, match=r"percentile .* must be above 50 and at most 100"):
        collect(normal(1, 4, 4)).percentile(percent)


@pytest.mark.parametrize("size", [1e-6, 1e-3, 1, 300, 1e4, 1e7])
def test_peak_ratio_of_steady_samples_is_one(size: float) -> None:
    collector = collect(*(f32([[size, -size / 2]]) for _ in range(9)))
    assert collector.peak_ratio() == pytest.approx(1, rel=0.1)


@pytest.mark.parametrize("size", [1e-6, 1, 1e5])
def test_peak_ratio_of_one_outlier(size: float) -> None:
    samples = [f32([[size, 0]]) for _ in range(8)] + [f32([[0, -50 * size]])]
    assert collect(*samples).peak_ratio() == pytest.approx(50, rel=0.1)
    assert collect(*samples[::-1]).peak_ratio() == pytest.approx(50, rel=0.1)


def peak_memory(samples: int) -> int:
    values = normal(1, 64, 32)
    collector = RangeCollector()
    collector.add(values)
    tracemalloc.start()
    try:
        for index in range(samples):
            collector.add(values * np.float32(1 + index % 7))
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_does_not_grow_with_the_samples() -> None:
    assert peak_memory(1000) <= peak_memory(10) + 20_000  # one more sample alone is 8 kB
