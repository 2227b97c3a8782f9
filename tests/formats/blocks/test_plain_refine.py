"""Plain searches beyond ggml's: no block gets worse."""

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
ROWS = 3  # the plain twins are slow; their kernels, of the same bytes, are tested with all rows
efforts = pytest.mark.parametrize("effort", [Effort.normal, Effort.best])


@functools.cache
def encoded(block_type: type[BlockType], name: str, importance: str) -> np.ndarray:
    return block_type.encode(samples.float_rows()[name][:ROWS], samples.importances()[importance])


@pytest.mark.parametrize("importance", samples.importances())
@types
def test_no_block_gets_worse(block_type: type[BlockType], importance: str):
    weights = samples.importances()[importance]
    for name, values in samples.float_rows().items():
        values = values[:ROWS]
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


@types
@efforts
def test_zeros_stay_zeros(block_type: type[BlockType], effort: Effort):
    values = np.zeros((2, 512), np.float32)
    refined = refine(block_type.name, values, None, block_type.encode(values), effort)
    assert not block_type.decode(refined, 512).any()


@types
def test_ggmls_effort_changes_nothing(block_type: type[BlockType]):
    given = encoded(block_type, "gauss", "none")
    rows = samples.float_rows()["gauss"][:ROWS]
    assert (refine(block_type.name, rows, None, given, Effort.ggml) == given).all()


def test_types_without_a_refiner_stay_as_they_are():
    values = samples.float_rows()["gauss"][:ROWS]
    for block_type in all_types():
        if block_type.encodes and block_type not in refined_types:
            given = encoded(block_type, "gauss", "none")
            assert (refine(block_type.name, values, None, given, Effort.best) == given).all()


@types
def test_no_blocks_at_all(block_type: type[BlockType]):
    empty = np.empty((0, 256), np.float32)
    assert refine(block_type.name, empty, None, block_type.encode(empty), Effort.normal).shape[0] == 0
