"""Scales of blocks by search, and AWQ's scales of columns."""

from __future__ import annotations

import numpy as np
import pytest

from edgeq.formats.blocks.lattice import Parts
from edgeq.formats.onnx.blocked import Scheme
from edgeq.methods import METHODS, BlockGrid, IntegerGrid, Statistics
from edgeq.methods.awq import awq_scales
from edgeq.methods.grids import Grid
from edgeq.methods.scale_search import own_grams, search_scales


def layer(columns: int, rows: int = 24) -> tuple[np.ndarray, Statistics]:
    """Weights, and what reads inputs of which some are large and all hang together."""
    rng = np.random.default_rng(7)
    mix = rng.standard_normal((3 * columns, columns), np.float32)
    mix += 2 * rng.standard_normal((3 * columns, 1), np.float32)
    mix *= np.exp(rng.standard_normal(columns, np.float32))
    return rng.standard_normal((rows, columns), np.float32), Statistics(mix.T @ mix, len(mix))


def error_of(weights: np.ndarray, values: np.ndarray, statistics: Statistics) -> float:
    difference = (values - weights).astype(np.float64)
    return float(np.sum(difference @ statistics.damped() * difference))


def block_errors(weights: np.ndarray, parts: Parts, grid: Grid, grams: np.ndarray) -> np.ndarray:
    """Σ e·H·e of each sub-block alone, ``[rows, sub-blocks]``, as the sum that it is."""
    rows, subs = parts.scales.shape
    away = (parts.values(grid.lattice) - weights).reshape(rows, subs, -1).astype(np.float64)
    return np.einsum("rsi,sij,rsj->rs", away, grams.astype(np.float64), away)


@pytest.mark.parametrize("name", ["Q4_0", "Q4_1", "IQ4_NL", "Q2_K", "Q3_K"])
def test_no_sub_block_gets_worse_and_the_type_can_hold_them(name: str):
    grid = BlockGrid(name)
    weights, statistics = layer(256)
    weights[3, :64] = 0
    grams = own_grams(statistics.damped(), grid.lattice.sub_values)
    parts = grid.start(weights, statistics.importance())
    before = block_errors(weights, parts, grid, grams)
    search_scales(weights, parts, grid.lattice, grams)
    after = block_errors(weights, parts, grid, grams)
    assert (after <= before * (1 + 1e-4) + 1e-6 * before.max()).all()
    assert after.sum() < 0.97 * before.sum()
    np.testing.assert_array_equal(
        grid.unpack(grid.pack(parts)).values(grid.lattice), parts.values(grid.lattice)
    )


def test_scales_of_columns_are_never_worse_than_none():
    weights, statistics = layer(64)
    weights *= np.exp(np.random.default_rng(1).standard_normal(64, np.float32))
    grid = IntegerGrid(Scheme(4, 32, symmetric=False))
    scales = awq_scales([weights[:8], weights[8:]], statistics, [grid, grid])
    assert np.log(scales).mean() == pytest.approx(0, abs=1e-5)
    plain = METHODS["clip"](weights, statistics, grid).values(grid.lattice)
    scaled = Statistics(statistics.gram / scales / scales[:, None], statistics.tokens)
    folded = METHODS["awq"](weights * scales, scaled, grid).values(grid.lattice) / scales
    assert error_of(weights, folded, statistics) < 0.97 * error_of(weights, plain, statistics)


def test_columns_that_one_value_feeds_share_a_scale():
    weights, statistics = layer(64)
    shared = np.arange(64) % 32
    weights *= np.exp(np.random.default_rng(1).standard_normal(32, np.float32))[shared]
    grid = IntegerGrid(Scheme(4, 32))
    scales = awq_scales([weights], statistics, [grid], shared)
    np.testing.assert_allclose(scales[:32], scales[32:], rtol=1e-6)
    assert np.ptp(scales) > 0.1
