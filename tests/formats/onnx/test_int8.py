"""The arithmetic of int8, apart from graphs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from onnx_graphs import f32

from edgeq.formats.onnx.int8 import (
    FULL_RANGE,
    SAFE_RANGE,
    TINY,
    ActivationRange,
    channel_scales,
    quantize_channels,
    relative_error,
)

LARGE = float(np.float32(1e30))
finite = st.floats(-LARGE, LARGE, width=32)
matrices = hnp.arrays(np.float32, hnp.array_shapes(min_dims=2, max_dims=3, max_side=6), elements=finite)
limits = st.sampled_from([SAFE_RANGE, FULL_RANGE])


def per_channel(scales: NDArray[np.float32], ndim: int, axis: int) -> NDArray[np.float64]:
    shape = [1] * ndim
    shape[axis] = -1
    return scales.astype(np.float64).reshape(shape)


@given(matrices, limits, st.data())
def test_codes_are_in_the_limit_and_at_most_half_a_step_off(
    matrix: NDArray[np.float32], limit: int, data: st.DataObject
) -> None:
    axis = data.draw(st.integers(0, matrix.ndim - 1))
    scales = channel_scales(matrix, axis, limit)
    codes = quantize_channels(matrix, scales, axis, limit)
    assert scales.shape == (matrix.shape[axis],)
    assert (scales.dtype, codes.dtype, codes.shape) == (np.dtype("f4"), np.dtype("i1"), matrix.shape)
    assert (scales > 0).all()
    assert np.abs(codes.astype(int)).max() <= limit
    steps = per_channel(scales, matrix.ndim, axis)
    assert (np.abs(codes * steps - matrix) <= steps * (0.5 + 1e-4)).all()
    assert (codes[matrix == 0] == 0).all()
    assert relative_error(np.zeros_like(matrix), np.zeros_like(codes), scales, axis) == 0


@given(matrices, limits)
def test_the_largest_weight_of_a_channel_gets_the_last_code(matrix: NDArray[np.float32], limit: int) -> None:
    codes = quantize_channels(matrix, channel_scales(matrix, 0, limit), 0, limit)
    rows = np.abs(matrix).reshape(len(matrix), -1).max(axis=1)
    largest = np.abs(codes.astype(int)).reshape(len(matrix), -1).max(axis=1)
    normal = rows > TINY * (limit + 1)
    assert (largest[normal] == limit).all()


def test_zero_columns_have_scale_one_and_zero_codes() -> None:
    matrix = f32([[0, 1], [0, -2]])
    scales = channel_scales(matrix, 1, FULL_RANGE)
    assert scales.tolist() == [1, np.float32(2) / np.float32(127)]
    assert quantize_channels(matrix, scales, 1, FULL_RANGE).tolist() == [[0, 64], [0, -127]]
    assert channel_scales(np.zeros((3, 0), np.float32), 0, 127).tolist() == [1, 1, 1]


def test_denormal_weights_count_as_zero() -> None:
    matrix = f32([[1e-43, 3e-44]])
    scales = channel_scales(matrix, 0, SAFE_RANGE)
    assert scales.tolist() == [1]
    assert not quantize_channels(matrix, scales, 0, SAFE_RANGE).any()


def test_safe_range_cannot_saturate_int16() -> None:
    """vpmaddubsw adds two u8 x s8 products in int16; every pair of weights, at the largest activation."""
    weights = np.arange(-SAFE_RANGE, SAFE_RANGE + 1)
    sums = 255 * weights[:, None] + 255 * weights[None, :]
    assert sums.min() >= -(2**15)
    assert sums.max() <= 2**15 - 1
    assert 2 * 255 * (SAFE_RANGE + 1) > 2**15 - 1  # the largest range that is safe


@given(st.floats(-1e30, 1e30), st.floats(-1e30, 1e30))
def test_zero_is_exact_and_the_ends_are_within_half_a_step(a: float, b: float) -> None:
    low, high = sorted((a, b))
    scale, zero = ActivationRange(low, high).scale_and_zero_point()
    assert (scale.dtype, zero.dtype) == (np.dtype("f4"), np.dtype("u1"))
    assert 0 < scale < np.inf
    step, offset = float(scale), int(zero)
    for value in (min(low, 0.0), 0.0, max(high, 0.0)):
        code = np.clip(np.rint(value / step) + offset, 0, 255)
        assert abs((code - offset) * step - value) <= step * (0.5 + 1e-4)
    assert (offset - offset) * step == 0  # 0.0 has a code of its own: the zero point, which is in range
    assert 0 <= offset <= 255


@pytest.mark.parametrize(
    ("low", "high", "scale", "zero"),
    [
        (0, 0, 1, 0),
        (0, 255, 1, 0),
        (-255, 0, 1, 255),
        (5, 510, 2, 0),
        (-510, -5, 2, 255),
        (-100, 155, 1, 100),
        (0, 1e-45, 1, 0),
        (-1e-45, 0, 1, 0),
    ],
)
def test_ranges(low: float, high: float, scale: float, zero: int) -> None:
    assert ActivationRange(low, high).scale_and_zero_point() == (np.float32(scale), np.uint8(zero))


def test_relative_error() -> None:
    matrix = f32([[3, 4]])
    codes = np.array([[3, 3]], np.int8)
    assert relative_error(matrix, codes, f32([1]), 0) == pytest.approx(1 / 5)
    assert relative_error(matrix, codes, f32([1, 4 / 3]), 1) == pytest.approx(0, abs=1e-7)
