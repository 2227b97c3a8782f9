"""Plain searches beyond ggml's: no block gets worse, and on average they get better by the promised part."""

from __future__ import annotations

import functools

import block_samples as samples
import numpy as np
import pytest

from edgeq.formats.blocks import BlockType, all_types
from edgeq.formats.blocks.refine import refine, refiner
from edgeq.formats.effort import Effort

refined_types = [t for t in all_types() if t.encodes and refiner(t.name)]
types = pytest.mark.parametrize("block_type", refined_types, ids=lambda t: t.name)
efforts = pytest.mark.parametrize("effort", [Effort.normal, Effort.best])

# Part of ggml's weighted squared error that ``normal`` takes away at least, averaged over Gaussian, Laplace
# and trained rows, without importance and with it: a little below what was measured.
LEAST_GAIN = {
    "Q2_K": (0.25, 0.11),
    "Q4_K": (0.055, 0.072),
    "Q5_K": (0.11, 0.12),
    "Q4_1": (0.2, 0.035),
    "Q5_1": (0.2, 0.045),
}


@functools.cache
def encoded(block_type: type[BlockType], name: str, importance: str) -> np.ndarray:
    return block_type.encode(samples.float_rows()[name], samples.importances()[importance])


def gain(
    block_type: type[BlockType], values: np.ndarray, weights: np.ndarray | None, effort: Effort
) -> float:
    """1 − error of the refined ÷ error of ggml's."""
    given = block_type.encode(values, weights)
    refined = refine(block_type.name, values, weights, given, effort)
    before, after = (samples.weighted_errors(block_type, values, weights, e).sum() for e in (given, refined))
    return float(1 - after / before)


@functools.cache
def gains(block_type: type[BlockType], importance: str, effort: Effort) -> list[float]:
    """Of Gaussian, Laplace and trained rows; the trained count as one."""
    rows = samples.float_rows()
    weights = samples.importances()[importance]
    trained = []
    for values in samples.trained_rows().values():
        columns = values.shape[1] // 256 * 256
        some = None if weights is None else weights[:columns]
        trained.append(gain(block_type, values[:48, :columns], some, effort))
    made = [gain(block_type, rows[name], weights, effort) for name in ("gauss", "laplace")]
    return [*made, float(np.mean(trained))]


@pytest.mark.parametrize("importance", samples.importances())
@types
def test_no_block_gets_worse(block_type: type[BlockType], importance: str):
    weights = samples.importances()[importance]
    for name, values in samples.float_rows().items():
        given = encoded(block_type, name, importance)
        refined = refine(block_type.name, values, weights, given, Effort.normal)
        before, after = (samples.weighted_errors(block_type, values, weights, e) for e in (given, refined))
        assert np.isfinite(after).all(), name
        assert (after <= before * (1 + 1e-6)).all(), name


@types
def test_blocks_of_any_origin_get_no_worse(block_type: type[BlockType]):
    """What is given need not come from an encoder: random scales, and codes that belong to other values."""
    rng = np.random.default_rng(11)
    given = samples.random_blocks(block_type, 64)
    values = rng.standard_normal((64, block_type.block_values)).astype(np.float32)
    refined = refine(block_type.name, values, None, given, Effort.normal)
    before, after = (samples.weighted_errors(block_type, values, None, e) for e in (given, refined))
    assert (after <= before * (1 + 1e-6)).all()
    assert after.sum() < before.sum() / 2


@types
@efforts
def test_zeros_stay_zeros(block_type: type[BlockType], effort: Effort):
    values = np.zeros((2, 512), np.float32)
    refined = refine(block_type.name, values, None, block_type.encode(values), effort)
    assert not block_type.decode(refined, 512).any()


@types
def test_gains_are_as_promised(block_type: type[BlockType]):
    least = LEAST_GAIN.get(block_type.name, (0.0, 0.0))
    for importance, bar in zip(("none", "exponential"), least, strict=True):
        assert np.mean(gains(block_type, importance, Effort.normal)) > bar, importance


@types
def test_best_is_better_than_normal(block_type: type[BlockType]):
    for importance in ("none", "exponential"):
        normal, best = (gains(block_type, importance, effort) for effort in (Effort.normal, Effort.best))
        assert np.mean(best) >= np.mean(normal), importance


@types
def test_ggmls_effort_changes_nothing(block_type: type[BlockType]):
    given = encoded(block_type, "gauss", "none")
    rows = samples.float_rows()["gauss"]
    assert (refine(block_type.name, rows, None, given, Effort.ggml) == given).all()


def test_types_without_a_refiner_stay_as_they_are():
    values = samples.float_rows()["gauss"]
    for block_type in all_types():
        if block_type.encodes and block_type not in refined_types:
            given = encoded(block_type, "gauss", "none")
            assert (refine(block_type.name, values, None, given, Effort.best) == given).all()


@types
def test_no_blocks_at_all(block_type: type[BlockType]):
    empty = np.empty((0, 256), np.float32)
    assert refine(block_type.name, empty, None, block_type.encode(empty), Effort.normal).shape[0] == 0
