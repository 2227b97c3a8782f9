"""Rounding under a Gram matrix: error feedback and descent against their plain twins, and what they may not do."""

from __future__ import annotations

import functools

import numpy as np
import plain_gram as plain
import pytest
from threadpoolctl import threadpool_info

from edgeq.formats.blocks import by_name
from edgeq.formats.blocks.lattice import Lattice, Parts, module
from edgeq.formats.blocks.lattice.base import whole
from edgeq.kernels_cpu.gram import descend, feedback_factor, round_by_feedback
from edgeq.kernels_cpu.gram.cholesky import factorize
from edgeq.kernels_cpu.gram.products import multiply_in_place, one_blas_thread, subtract

ROWS, COLUMNS = 6, 512
TYPES = ("Q2_K", "Q3_K", "Q4_K", "IQ4_XS", "Q4_1")
types = pytest.mark.parametrize("name", TYPES)


@functools.cache
def weights() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((ROWS, COLUMNS)).astype(np.float32) * np.float32(0.05)


@functools.cache
def gram() -> np.ndarray:
    """Of inputs that hang together, some columns large."""
    rng = np.random.default_rng(1)
    mix = rng.standard_normal((COLUMNS, COLUMNS)) * 0.15 + np.eye(COLUMNS)
    x = rng.standard_normal((4 * COLUMNS, COLUMNS)) @ mix * np.exp(rng.standard_normal(COLUMNS))
    h = x.T @ x
    return (h + 0.01 * np.diag(h).mean() * np.eye(COLUMNS)).astype(np.float32)


def start(name: str) -> tuple[Parts, Lattice]:
    block_type, found = by_name(name), module(name)
    encoded = block_type.encode(weights(), np.diag(gram()))
    return found.unpack(encoded.reshape(-1, block_type.block_bytes)).in_rows(ROWS), found.LATTICE


def copied(parts: Parts) -> Parts:
    return Parts(*(part.copy() for part in parts))


def errors(parts: Parts, lattice: Lattice) -> np.ndarray:
    return plain.error(weights(), parts.values(lattice), gram())


@types
def test_feedback_is_gptq(name: str):
    parts, lattice = start(name)
    before, expected = errors(parts, lattice), plain.round_by_feedback(weights(), parts, lattice, gram())
    round_by_feedback(weights(), parts, lattice, feedback_factor(gram()))
    same = (parts.codes == expected).mean(axis=1)
    assert np.median(same) > 0.99, f"{same}: a row may part from the twin where a value lies in the middle"
    assert errors(parts, lattice).sum() < 0.9 * before.sum()


def test_feedback_in_the_columns_own_order_and_odd_panels():
    parts, lattice = start("Q4_1")
    few = 160  # a whole panel and a part of one
    parts = Parts(parts.d[:, : few // 32], parts.dmin[:, : few // 32], *(p[:, : few // 32] for p in parts[2:4]),
                  parts.codes[:, :few])  # fmt: skip
    parts, target, h = copied(parts), weights()[:, :few].copy(), gram()[:few, :few].copy()
    order = np.argsort(-np.diag(h), kind="stable")
    assert (feedback_factor(h).place[::-1] == order).all()
    round_by_feedback(target, parts, lattice, feedback_factor(h))
    assert (parts.codes == plain.round_by_feedback(target, parts, lattice, h)).mean() > 0.98


def test_rows_are_rounded_alike_in_every_group():
    parts, lattice = start("Q4_1")
    many, factor = Parts(*(np.tile(part, (12, 1)) for part in parts)), feedback_factor(gram())
    round_by_feedback(weights(), parts, lattice, factor)
    round_by_feedback(np.tile(weights(), (12, 1)), many, lattice, factor)
    different = many.codes.reshape(12, ROWS, COLUMNS) != parts.codes
    assert different.mean() < 0.02, "BLAS may sum other numbers of rows in another order"


@pytest.mark.parametrize("columns", [1, 128, 300])
def test_factor_is_numpys(columns: int):
    matrix = gram()[:columns, :columns].copy()
    expected = np.linalg.cholesky(matrix.astype(np.float64))
    factorize(matrix)
    np.testing.assert_allclose(np.tril(matrix), expected, rtol=1e-3, atol=1e-4 * expected.max())


def test_products_on_our_threads_are_numpys():
    rng = np.random.default_rng(2)
    out, left, right = (
        rng.standard_normal(shape, np.float32) for shape in ((70, 2100), (70, 40), (40, 2100))
    )
    square = rng.standard_normal((2100, 2100), np.float32)
    expected = out - left @ right
    with one_blas_thread():
        subtract(out, left, right)
        np.testing.assert_allclose(out, expected, atol=1e-4)
        multiply_in_place(out, square)
    np.testing.assert_allclose(out, expected @ square, atol=1e-2)


def test_blas_has_its_threads_back_after_the_last_block():
    def blas() -> list[int]:
        return [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]

    before = blas()
    outer, inner = one_blas_thread(), one_blas_thread()
    outer.__enter__()
    inner.__enter__()
    outer.__exit__(None, None, None)  # as of two threads: the first to come is the first to go
    assert blas() == [1] * len(before)
    inner.__exit__(None, None, None)
    assert blas() == before


@types
def test_descent_on_codes_is_the_plain_sweep(name: str):
    parts, lattice = start(name)
    expected = plain.sweep(weights(), parts, lattice, gram())
    expected = plain.sweep(weights(), parts._replace(codes=expected), lattice, gram())
    before, scales = errors(parts, lattice), parts.scales.copy()
    one = Parts(*(np.ascontiguousarray(part[:, : part.shape[1] // 2]) for part in parts))  # one panel
    half = COLUMNS // 2
    h = np.ascontiguousarray(gram()[:half, :half])
    own = plain.sweep(weights()[:, :half], one, lattice, h)
    own = plain.sweep(weights()[:, :half], one._replace(codes=own), lattice, h)
    descend(weights()[:, :half].copy(), one, lattice, h, rounds=1, choose_scales=False)
    assert (one.codes == own).mean() > 0.99
    descend(weights(), parts, lattice, gram(), choose_scales=False)
    assert (parts.scales == scales).all()
    assert (errors(parts, lattice) <= before * (1 + 1e-4)).all()
    twins = errors(parts._replace(codes=expected), lattice)
    assert errors(parts, lattice).sum() < 1.02 * twins.sum()


@types
def test_scales_lower_the_error_further_and_stay_in_range(name: str):
    parts, lattice = start(name)
    round_by_feedback(weights(), parts, lattice, feedback_factor(gram()))
    codes_only = copied(parts)
    descend(weights(), codes_only, lattice, gram(), choose_scales=False)
    before = errors(parts, lattice)
    descend(weights(), parts, lattice, gram())
    after = errors(parts, lattice)
    assert (after <= before * (1 + 1e-4)).all()
    assert after.sum() < errors(codes_only, lattice).sum()
    for part, (low, high) in ((parts.scales, lattice.scales), (parts.mins, lattice.mins)):
        assert (part == np.rint(part)).all()
        assert low <= part.min() <= part.max() <= high
    assert (parts.d == parts.d.astype(np.float16)).all()
    assert (parts.dmin == parts.dmin.astype(np.float16)).all()
    assert parts.codes.max() < len(lattice.levels)


def test_zero_points_move_with_a_tied_scale():
    lattice = Lattice(whole(0, 15), 32, mins=(0, 15), tied=True, half=False)
    blocks = weights().reshape(-1, 32)
    low, d = np.minimum(blocks.min(axis=1), 0), np.ptp(blocks, axis=1) / np.float32(15)
    zeros = np.rint(-low / d)[:, None]
    codes = np.clip(np.rint(blocks / d[:, None]) + zeros, 0, 15).astype(np.uint8)
    parts = Parts(d, d, np.ones_like(zeros), zeros, codes).in_rows(ROWS)
    before = errors(parts, lattice)
    descend(weights(), parts, lattice, gram())
    assert errors(parts, lattice).sum() < 0.8 * before.sum()
    assert (parts.d == parts.dmin).all()
    assert (parts.mins == np.rint(parts.mins)).all()
    assert 0 <= parts.mins.min() <= parts.mins.max() <= 15


def test_zero_weights_and_zero_scales_are_left_alone():
    parts, lattice = start("Q4_K")
    zero = Parts(*(np.zeros_like(part) for part in parts))
    target = np.zeros_like(weights())
    round_by_feedback(target, zero, lattice, feedback_factor(gram()))
    descend(target, zero, lattice, gram())
    assert (zero.values(lattice) == 0).all()


def test_a_matrix_without_an_inverse_is_refused():
    with pytest.raises(np.linalg.LinAlgError):
        feedback_factor(np.zeros((32, 32), np.float32))
