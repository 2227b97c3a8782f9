"""The calibration methods against what they say they do."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx_graphs import Floats, f32, normal

from edgeq.calibration.methods import METHODS, parse_method
from edgeq.calibration.methods.entropy import divergences
from edgeq.calibration.ranges import RangeCollector
from edgeq.errors import InputError


def collect(*samples: Floats) -> RangeCollector:
    collector = RangeCollector(channels=None)
    for sample in samples:
        collector.add(sample)
    return collector


def error(values: Floats, name: str) -> float:
    """Squared error of values after 8 bits of the range that a method gives."""
    scale, zero = parse_method(name)(collect(values)).scale_and_zero_point()
    codes = np.clip(np.rint(values / scale) + int(zero), 0, 255)
    return float(np.square((codes - int(zero)) * scale - values).mean())


def test_the_registry() -> None:
    assert set(METHODS) == {"minmax", "moving-average", "percentile", "entropy", "mse", "mean-std"}


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("samples", [[], [np.zeros((2, 3), np.float32)], [f32([[3.5]])], [f32([[-1, -2]])]])
def test_any_method_of_next_to_nothing(name: str, samples: list[Floats]) -> None:
    collector = collect(*samples)
    interval = parse_method(name)(collector)
    assert collector.low <= interval.low <= interval.high <= collector.high or not samples


@pytest.mark.parametrize("name", METHODS)
def test_no_method_leaves_what_was_seen(name: str) -> None:
    collector = collect(*(normal(i, 64, 8) * np.float32(1 + i) for i in range(5)))
    interval = parse_method(name)(collector)
    assert collector.low <= interval.low < 0 < interval.high <= collector.high


@pytest.mark.parametrize("name", ["entropy", "percentile:99.9", "mean-std:6"])
def test_outliers_are_clipped(name: str) -> None:
    values = normal(1, 100_000)
    values[:3] = 300
    interval = parse_method(name)(collect(values))
    assert 2 < interval.high < 100


def test_the_squared_error_of_mse_is_least() -> None:
    values = (normal(2, 50_000) ** 3).astype(np.float32)
    least = error(values, "mse")
    assert all(least <= error(values, name) * 1.001 for name in METHODS)
    assert least < 0.95 * error(values, "minmax")


def test_one_side_only() -> None:
    values = np.abs(normal(3, 10_000))
    for name in METHODS:
        interval = parse_method(name)(collect(values))
        assert interval.low == pytest.approx(0, abs=1e-3)
        assert interval.high > 1


def test_moving_average() -> None:
    collector = collect(f32([10, -2]), f32([20, -4]))
    interval = parse_method("moving-average")(collector)
    assert (interval.low, interval.high) == pytest.approx((-2.02, 10.1))


def test_mean_std() -> None:
    values = normal(4, 100_000) + np.float32(5)
    interval = parse_method("mean-std:2")(collect(values))
    assert interval.high == pytest.approx(7, abs=0.05)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("median", "median: there are entropy, mean-std:6, minmax, moving-average, mse, percentile:99.99"),
        ("minmax:3", "there are"),
        ("percentile:x", "'x' is no number"),
        ("percentile:40", "must be above 50 and at most 100"),
        ("percentile:nan", "must be above 50"),
        ("mean-std:0", "must be above 0"),
    ],
)
def test_bad_names(text: str, problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        parse_method(text)


def plain_divergence(
    counts: NDArray[np.float64], values: NDArray[np.float64], low: float, high: float
) -> float:
    """Bin by bin: what lies outside goes into the edges, and q is each code's share spread over its filled bins."""
    first = min(int(np.searchsorted(values, low)), len(values) - 1)
    last = max(int(np.searchsorted(values, high)), first + 1)
    p = counts[first:last].copy()
    held = p > 0
    codes = np.clip((values[first:last] - low) / (high - low) * 256, 0, 255).astype(int)
    q = np.zeros(len(p))
    for code in np.unique(codes[held]):
        bins = held & (codes == code)
        q[bins] = p[bins].mean()
    p[0] += counts[:first].sum()
    p[-1] += counts[last:].sum()
    p, q = p / p.sum(), q / max(q.sum(), 1)
    q += 0 if (q[p > 0] > 0).all() else 1e-12
    return float(sum(p * np.log(np.where(p > 0, p, 1) / np.where(p > 0, q, 1))))


@pytest.mark.parametrize("bins", [3, 300, 2000])
def test_divergences(bins: int) -> None:
    """Sums up to each bin against the bins themselves, with empty ones and intervals that cut nearly everything."""
    counts = np.random.default_rng(bins).poisson(np.linspace(0, 3, bins)).astype(np.float64)
    counts[[0, -1]] = 1
    values = np.linspace(-1.013, 2.007, bins)
    highs = np.geomspace(2.1, 0.01, 40)
    lows = np.maximum(-1.1, -highs)
    expected = [plain_divergence(counts, values, low, high) for low, high in zip(lows, highs, strict=True)]
    np.testing.assert_allclose(divergences(counts, values, lows, highs), expected, rtol=1e-6, atol=1e-9)
