"""The calibration kernels against NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edgeq.kernels_cpu.ranges import extremes, histogram

MOST = np.float32(1e8)
Floats = NDArray[np.float32]


def plain_extremes(values: Floats) -> tuple[int, Floats, Floats, NDArray[np.float64], NDArray[np.float64]]:
    """Of ``[rows, columns, inner]``."""
    usable = np.abs(values) < MOST
    kept = np.where(usable, values, 0)
    wide = kept.astype(np.float64)
    lows, highs = kept.min(axis=(0, 2), initial=0), kept.max(axis=(0, 2), initial=0)
    return int(usable.sum()), lows, highs, wide.sum(axis=(0, 2)), np.square(wide).sum(axis=(0, 2))


def plain_histogram(values: Floats, limit: float, bins: int) -> NDArray[np.int64]:
    kept = values[np.abs(values) < MOST].astype(np.float64)
    places = (kept * (bins / 2 / limit) + bins / 2).astype(np.int64)
    return np.bincount(np.minimum(places, bins - 1), minlength=bins)


def sample(*shape: int) -> Floats:
    values = np.random.default_rng(len(shape)).standard_normal(shape).astype(np.float32)
    flat = values.reshape(-1)
    flat[:4] = np.nan, np.inf, -3.4e38, 1e8
    return values


def swept(values: Floats, ends: list[int], columns: int, inner: int) -> tuple[NDArray[Any], ...]:
    """Counts, lows, highs, totals, squares."""
    lows, highs = np.zeros((2, len(ends), columns), np.float32)
    totals, squares = np.zeros((2, columns))
    counts = np.zeros(len(ends), np.int64)
    extremes(values.reshape(-1), np.array(ends), inner, MOST, lows, highs, totals, squares, counts)
    return counts, lows, highs, totals, squares


@pytest.mark.parametrize("shape", [(5, 48, 1), (3, 7, 4), (2, 1, 9), (2, 5, 30)])
def test_extremes(shape: tuple[int, int, int]) -> None:
    values = sample(*shape)
    row = shape[1] * shape[2]
    counts, lows, highs, totals, squares = swept(values, [row, row, values.size], shape[1], shape[2])
    for number, part in enumerate((values[:1], values[1:1], values[1:])):
        expected = plain_extremes(part)
        assert counts[number] == expected[0]
        np.testing.assert_array_equal(lows[number], expected[1])
        np.testing.assert_array_equal(highs[number], expected[2])
    np.testing.assert_allclose(totals, plain_extremes(values)[3], rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(squares, plain_extremes(values)[4], rtol=1e-12)


def test_a_last_row_that_is_cut() -> None:
    values = sample(1000)
    counts, lows, highs, totals, _ = swept(values, [1000], 64, 1)
    kept = values[np.abs(values) < MOST]
    assert counts[0] == 996
    assert (lows.min(), highs.max()) == (kept.min(), kept.max())
    assert totals.sum() == pytest.approx(kept.astype(np.float64).sum())


def test_histogram() -> None:
    values = sample(5001)
    values[10:1000] = 0  # as behind a Relu
    limit = float(np.abs(values[np.abs(values) < MOST]).max())
    counts = np.ones(256, np.int64)
    histogram(values, MOST, limit, counts)
    np.testing.assert_array_equal(counts - 1, plain_histogram(values, limit, 256))
