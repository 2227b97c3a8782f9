"""Refiners of the types x = scale · level: what is peculiar to them. What all refiners owe is in test_refine."""

import block_samples as samples
import numpy as np
import pytest
from numba import njit

from edgeq.devices.detect import instruction_set
from edgeq.formats.blocks import by_name
from edgeq.formats.blocks import mxfp4 as plain_mxfp4
from edgeq.formats.blocks import nonlinear as plain_nonlinear
from edgeq.formats.blocks.refine import refine as plainly_refined
from edgeq.formats.effort import Effort
from edgeq.kernels_cpu import simd
from edgeq.kernels_cpu.encode import encode
from edgeq.kernels_cpu.refine import levels
from edgeq.kernels_cpu.refine import refine as refine_in_place

ISA = instruction_set()
ONE_SCALE = ["Q4_0", "Q5_0", "Q8_0", "IQ4_NL"]
TERNARY = ["TQ1_0", "TQ2_0"]
TYPES = ["Q3_K", "Q6_K", "IQ4_XS", "MXFP4", *ONE_SCALE, *TERNARY]
# Per cent of the squared error that normal takes away at least, without importance and with it.
GAINS = {
    "Q3_K": (8.5, 4),
    "Q6_K": (12, 12.5),
    "IQ4_XS": (7, 7.5),
    "MXFP4": (3.5, 4),
    "Q4_0": (8, 4),
    "Q5_0": (8, 4),
    "Q8_0": (19, 28),
    "IQ4_NL": (6.5, 7),
    "TQ1_0": (55, 55),
    "TQ2_0": (55, 55),
}

types = pytest.mark.parametrize("name", TYPES)


def block_errors(name: str, values: np.ndarray, weights: np.ndarray | None, rows: np.ndarray) -> np.ndarray:
    """Σ w · (x − x̂)² of each block, in float64."""
    decoded = by_name(name).decode(rows, values.shape[1]).astype(np.float64)
    squares = (values - decoded) ** 2 * (1 if weights is None else weights.astype(np.float64))
    return squares.reshape(-1, by_name(name).block_values).sum(axis=1)


@types
@pytest.mark.parametrize("shape", [(1, 256), (3, 768), (5, 1280)], ids=str)
@pytest.mark.parametrize("weighted", [False, True])
def test_rows_that_do_not_fill_the_lanes(name: str, shape: tuple[int, int], weighted: bool):
    rng = np.random.default_rng(shape)
    values = rng.laplace(size=shape).astype(np.float32)
    weights = rng.exponential(size=shape[1]).astype(np.float32) if weighted else None
    encoded = encode(name, values, weights, ISA)
    expected = plainly_refined(name, values, weights, encoded, Effort.normal)
    refine_in_place(name, values, weights, encoded, ISA, Effort.normal)
    assert not samples.differences(by_name(name), encoded, expected)


@types
def test_best_is_nowhere_worse_than_normal(name: str):
    for row_kind in ("gauss", "outliers", "constant", "integers", "huge min, tiny range"):
        values = samples.float_rows()[row_kind]
        for weights in samples.importances().values():
            normal, best = (
                block_errors(name, values, weights, encode(name, values, weights, ISA, effort))
                for effort in (Effort.normal, Effort.best)
            )
            assert (best <= normal * (1 + 1e-6)).all(), row_kind


@types
@pytest.mark.parametrize("weighted", [False, True])
def test_normal_takes_away_as_much_as_measured(name: str, weighted: bool):
    rows = {kind: samples.float_rows()[kind] for kind in ("gauss", "laplace")} | samples.trained_rows()
    gains = []
    for values in rows.values():
        weights = samples.importances()["exponential"][: values.shape[1]] if weighted else None
        before, after = (
            block_errors(name, values, weights, encode(name, values, weights, ISA, effort)).sum()
            for effort in (Effort.ggml, Effort.normal)
        )
        gains.append(100 * (1 - after / before))
    assert np.mean(gains) > GAINS[name][weighted]


@pytest.mark.parametrize("name", ONE_SCALE)
@pytest.mark.parametrize("weighted", [False, True])
def test_best_comes_near_the_best_of_all_scales(name: str, weighted: bool):
    values = samples.float_rows()["gauss"][:4, :256]
    weights = samples.importances()["exponential"][:256] if weighted else None
    found = encode(name, values, weights, ISA, Effort.best)
    blocks = values.reshape(-1, 32)
    columns = np.broadcast_to(1 if weights is None else weights, values.shape).reshape(-1, 32)
    lowest = np.full(len(blocks), np.inf)
    around = by_name(name).encode(blocks)[:, :2].copy().view("<f2")[:, 0].astype(np.float32)
    for multiple in np.concatenate([np.geomspace(0.4, 2, 3000), -np.geomspace(0.4, 2, 3000)]):
        d = (around * multiple).astype(np.float16).astype(np.float64)[:, None]
        errors = columns * (blocks - d * plain_levels(name, blocks / d)) ** 2
        lowest = np.minimum(lowest, errors.sum(axis=1))
    assert block_errors(name, values, weights, found).sum() < 1.01 * lowest.sum()


def plain_levels(name: str, units: np.ndarray) -> np.ndarray:
    if name == "IQ4_NL":
        return plain_nonlinear.LEVELS[plain_nonlinear.nearest_level(units)]
    low, high = {"Q4_0": (-8, 7), "Q5_0": (-16, 15), "Q8_0": (-127, 127)}[name]
    return np.rint(np.clip(units, low, high))


@pytest.mark.parametrize("name", TERNARY)
def test_ternary_weights_stay_exact(name: str):
    values = np.random.default_rng(3).integers(-1, 2, (8, 512)).astype(np.float32) * np.float32(0.125)
    assert (encode(name, values, None, ISA, Effort.best) == encode(name, values, None, ISA)).all()


def test_q8_0_keeps_to_127():
    values = samples.float_rows()["gauss"]
    for effort in (Effort.normal, Effort.best):
        blocks = encode("Q8_0", values, None, ISA, effort).reshape(-1, 34)
        assert blocks[:, 2:].view(np.int8).min() == -127


@types
def test_weights_beyond_reason_do_no_harm(name: str):
    values = samples.float_rows()["laplace"][:3]
    weights = np.geomspace(1e-38, 3e38, values.shape[1]).astype(np.float32)
    encoded = encode(name, values, None, ISA)
    before = block_errors(name, values, weights, encoded)
    refine_in_place(name, values, weights, encoded, ISA, Effort.best)
    assert (block_errors(name, values, weights, encoded) <= before * (1 + 1e-6)).all()


@njit
def nearest_and_code(isa, kind, x, nearest, codes):
    eight = simd.resized(isa, 8)
    for i in range(0, x.size, 8):
        units = simd.load(eight, simd.address(x) + 4 * i)
        simd.store(simd.address(nearest) + 4 * i, levels.nearest(eight, kind, units))
        simd.store(simd.address(codes) + 4 * i, levels.code(eight, kind, units))


def test_levels_and_their_codes():
    rng = np.random.default_rng(4)
    x = np.concatenate([rng.uniform(-140, 140, 4000), np.arange(-140, 140, 0.5), [np.inf, -np.inf, 0, -0.0]])
    x = np.resize(x, -(-x.size // 8) * 8).astype(np.float32)
    nearest, codes = np.empty_like(x), np.empty(x.size, np.int32)
    nearest_and_code(ISA, levels.uniform(-8, 7, -8), x, nearest, codes)
    assert (nearest == np.rint(np.clip(x, -8, 7))).all()
    assert (codes == nearest + 8).all()
    nearest_and_code(ISA, levels.UNEVEN, x, nearest, codes)
    assert (codes == plain_nonlinear.nearest_level(x)).all()
    assert (nearest == plain_nonlinear.LEVELS[codes]).all()
    nearest_and_code(ISA, levels.FLOAT4, x, nearest, codes)
    finite = np.where(np.isfinite(x), x, np.copysign(np.float32(1e6), x))
    assert (codes == plain_mxfp4.nearest_codes(finite[:, None], np.ones(x.size, np.float32))[:, 0]).all()
    assert (nearest == plain_mxfp4.LEVELS[codes]).all()
