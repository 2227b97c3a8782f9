"""Fast searches beyond ggml's against their plain twins: the same bytes on every width."""

from __future__ import annotations

import functools

import block_samples as samples
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeq.devices.detect import instruction_set
from edgeq.formats.blocks import BlockType, all_types
from edgeq.formats.blocks.refine import refine, refiner
from edgeq.formats.effort import Effort
from edgeq.formats.errors import EdgeqError
from edgeq.kernels_cpu import threads
from edgeq.kernels_cpu.encode import encode
from edgeq.kernels_cpu.isa import PORTABLE, Isa
from edgeq.kernels_cpu.registry import kernels

refined_types = [t for t in all_types() if t.encodes and refiner(t.name)]
types = pytest.mark.parametrize("block_type", refined_types, ids=lambda t: t.name)
ROWS = 5  # not a whole number of lanes
SOME = ("gauss", "sparse", "mixed scales")
isas = [PORTABLE, instruction_set(), Isa("wide", 512)]


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
def plainly_refined(block_type: type[BlockType], importance: str, name: str, effort: Effort) -> np.ndarray:
    values, weights = samples.float_rows()[name][:ROWS], samples.importances()[importance]
    return refine(block_type.name, values, weights, encode(block_type.name, values, weights), effort)


def test_both_twins_are_there():
    fast = {t.name for t in all_types() if kernels("edgeq.kernels_cpu.refine", t.name)}
    assert fast == {t.name for t in refined_types}


@pytest.mark.parametrize("isa", isas, ids=lambda isa: f"{isa.name}-{isa.vector_bits}")
@pytest.mark.parametrize("importance", samples.importances())
@types
def test_refiners_are_equal(block_type: type[BlockType], importance: str, isa: Isa):
    weights = samples.importances()[importance]
    for name, values in samples.float_rows().items():
        if importance in ("half of them zero", "zero blocks") and name not in SOME:
            continue
        fast = encode(block_type.name, values[:ROWS], weights, isa, Effort.normal)
        plain = plainly_refined(block_type, importance, name, Effort.normal)
        assert not samples.differences(block_type, fast, plain), name


@pytest.mark.parametrize("importance", ["none", "half of them zero"])
@types
def test_refiners_are_equal_with_all_effort(block_type: type[BlockType], importance: str):
    weights = samples.importances()[importance]
    for name in SOME:
        values = samples.float_rows()[name][:ROWS]
        fast = encode(block_type.name, values, weights, instruction_set(), Effort.best)
        plain = plainly_refined(block_type, importance, name, Effort.best)
        assert not samples.differences(block_type, fast, plain), name


@pytest.mark.parametrize("importance", samples.importances())
@pytest.mark.parametrize("effort", [Effort.normal, Effort.best])
@types
def test_no_block_gets_worse(block_type: type[BlockType], effort: Effort, importance: str):
    weights = samples.importances()[importance]
    for name, values in (samples.float_rows() | samples.trained_rows()).items():
        columns = values.shape[1] // 256 * 256
        values, some = values[:, :columns], None if weights is None else weights[:columns]
        ours, ggmls = (
            samples.weighted_errors(
                block_type, values, some, encode(block_type.name, values, some, isas[1], e)
            )
            for e in (effort, Effort.ggml)
        )
        assert (ours <= ggmls * (1 + 1e-6)).all(), name


@types
def test_the_largest_scales_stay_finite(block_type: type[BlockType]):
    """Just below where the encoder refuses, nothing may become infinite."""
    values = samples.float_rows()["gauss"][:7]
    for size in 2.0 ** np.arange(40, 0, -0.25):
        large = (values * size).astype(np.float32)
        try:
            refined = encode(block_type.name, large, None, isas[1], Effort.best)
        except EdgeqError:
            continue
        decoded = block_type.decode(refined, large.shape[1])
        assert np.isfinite(decoded).all()
        return
    assert block_type.name in {"MXFP4"}  # has float32's range


@types
@settings(max_examples=10, deadline=None)
@given(rows=st.integers(0, 5), blocks=st.integers(0, 4), seed=st.integers(0, 2**31), weighted=st.booleans())
def test_any_shape(block_type: type[BlockType], rows: int, blocks: int, seed: int, weighted: bool):
    columns = blocks * block_type.block_values
    rng = np.random.default_rng(seed)
    values = rng.standard_normal((rows, columns)).astype(np.float32)
    weights = rng.exponential(size=columns).astype(np.float32) if weighted else None
    plain = refine(block_type.name, values, weights, encode(block_type.name, values, weights), Effort.normal)
    assert (encode(block_type.name, values, weights, effort=Effort.normal) == plain).all()


@types
def test_threads_do_not_matter(block_type: type[BlockType]):
    values = np.random.default_rng(4).standard_normal((300, 1024)).astype(np.float32)
    before = threads.get_threads()
    try:
        results = []
        for n in (1, 3):
            threads.set_threads(n)
            results.append(encode(block_type.name, values, None, isas[1], Effort.normal))
    finally:
        threads.set_threads(before)
    assert (results[0] == results[1]).all()


def gain(
    block_type: type[BlockType], values: np.ndarray, weights: np.ndarray | None, effort: Effort
) -> float:
    """1 − error of the refined ÷ error of ggml's."""
    isa = instruction_set()
    given, refined = (encode(block_type.name, values, weights, isa, e) for e in (Effort.ggml, effort))
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
