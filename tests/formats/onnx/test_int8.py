"""The arithmetic of int8, apart from graphs."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnx_graphs import f32, normal

from edgeq.formats.onnx.int8 import (
    FULL_RANGE,
    SAFE_RANGE,
    TINY,
    ActivationRange,
    quantize_channels,
    relative_error,
    weight_scales,
)

LARGE = float(np.float32(1e30))
finite = st.floats(-LARGE, LARGE, width=32)
matrices = hnp.arrays(np.float32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=7), elements=finite)
axes = st.integers(0, 1)


def per_channel(scales: NDArray[np.float32], axis: int) -> NDArray[np.float64]:
    return np.expand_dims(scales.astype(np.float64), 1 - axis)


def squared_error(matrix: NDArray[np.float32], codes: NDArray[np.int8], steps: NDArray[np.float64]) -> float:
    return float(np.square(codes * steps - matrix.astype(np.float64)).sum())


@given(matrices, axes, st.sampled_from([SAFE_RANGE, FULL_RANGE]))
def test_shapes_types_and_zeros(matrix: NDArray[np.float32], axis: int, limit: int) -> None:
    scales = weight_scales(matrix, axis, limit)
    codes = quantize_channels(matrix, scales, axis, limit)
    assert scales.shape == (matrix.shape[axis],)
    assert (scales.dtype, codes.dtype, codes.shape) == (np.dtype("f4"), np.dtype("i1"), matrix.shape)
    assert (scales > 0).all()
    assert np.abs(codes.astype(int)).max() <= FULL_RANGE
    assert (codes[matrix == 0] == 0).all()
    assert relative_error(np.zeros_like(matrix), np.zeros_like(codes), scales, axis) == 0


@given(matrices, axes)
def test_the_full_range_is_used_and_codes_are_half_a_step_off_at_most(
    matrix: NDArray[np.float32], axis: int
) -> None:
    scales = weight_scales(matrix, axis, FULL_RANGE)
    codes = quantize_channels(matrix, scales, axis, FULL_RANGE)
    steps = per_channel(scales, axis)
    assert (np.abs(codes * steps - matrix) <= steps * (0.5 + 1e-4)).all()
    normal = np.abs(matrix).max(axis=1 - axis) > TINY * (FULL_RANGE + 1)
    assert (np.abs(codes.astype(int)).max(axis=1 - axis)[normal] == FULL_RANGE).all()


@given(matrices, axes)
def test_neighbours_of_the_safe_range_cannot_saturate_and_beat_seven_bits(
    matrix: NDArray[np.float32], axis: int
) -> None:
    scales = weight_scales(matrix, axis, SAFE_RANGE)
    codes = quantize_channels(matrix, scales, axis, SAFE_RANGE).astype(int)
    summed = codes if axis == 1 else codes.T  # [K, N]
    even = len(summed) // 2 * 2
    assert np.abs(summed[0:even:2] + summed[1:even:2]).max(initial=0) * 255 < 2**15
    if np.abs(matrix).max() < 1e15:  # squares fit into float32
        seven = np.abs(matrix).max(axis=1 - axis) / np.float32(SAFE_RANGE)
        seven = np.where(seven >= TINY, seven, 1).astype(np.float32)
        steps = per_channel(seven, axis)
        plain = np.clip(np.rint(matrix / steps), -SAFE_RANGE, SAFE_RANGE).astype(np.int8)
        ours = squared_error(matrix, codes.astype(np.int8), per_channel(scales, axis))
        assert ours <= squared_error(matrix, plain, steps) * (1 + 1e-4) + 1e-30


def test_a_pair_gives_up_what_is_too_much_alike() -> None:
    matrix = f32([[127], [127], [100], [40], [127], [-127], [-90], [-60], [127]])
    codes = quantize_channels(matrix, f32([1]), 1, SAFE_RANGE)
    assert codes.ravel().tolist() == [64, 64, 94, 34, 127, -127, -79, -49, 127]
    assert quantize_channels(matrix.T, f32([1]), 0, SAFE_RANGE).ravel().tolist() == codes.ravel().tolist()


def test_the_runtime_adds_exactly_what_the_safe_range_lets_it() -> None:
    """The largest activations against weights at the limit: ONNX Runtime's sums are exact on any CPU."""
    random = np.random.default_rng(3)
    matrix = f32(random.choice([-1.0, 1.0], (256, 64)) * random.uniform(0.7, 1, (256, 64)))
    matrix[::2] = np.abs(matrix[::2]) * np.sign(matrix[1::2])  # neighbours of one sign
    codes = quantize_channels(matrix, f32(np.full(64, 1 / 127)), 1, SAFE_RANGE)
    x = np.full((8, 256), 255, np.uint8)
    node = helper.make_node("MatMulInteger", ["x", "w"], ["y"])
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, [8, 256])],
        [helper.make_tensor_value_info("y", TensorProto.INT32, [8, 64])],
        [numpy_helper.from_array(codes, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    assert (session.run(None, {"x": x})[0] == x.astype(int) @ codes.astype(int)).all()


def test_zero_columns_have_scale_one_and_zero_codes() -> None:
    matrix = f32([[0, 1], [0, -2]])
    scales = weight_scales(matrix, 1, FULL_RANGE)
    assert scales.tolist() == [1, np.float32(2) / np.float32(127)]
    assert quantize_channels(matrix, scales, 1, FULL_RANGE).tolist() == [[0, 64], [0, -127]]
    assert weight_scales(np.zeros((3, 0), np.float32), 0, 127).tolist() == [1, 1, 1]


def test_denormal_weights_count_as_zero() -> None:
    matrix = f32([[1e-43, 3e-44]])
    scales = weight_scales(matrix, 0, SAFE_RANGE)
    assert scales.tolist() == [1]
    assert not quantize_channels(matrix, scales, 0, SAFE_RANGE).any()


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


@pytest.mark.parametrize("limit", [SAFE_RANGE, FULL_RANGE])
def test_one_scale_of_all(limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same in pieces; as good as one channel of the same numbers, and coarser than one scale for each."""
    matrix = normal(4, 40, 24) * np.geomspace(0.2, 1, 24, dtype=np.float32)
    scale = weight_scales(matrix, 1, limit, "tensor")
    codes = quantize_channels(matrix, scale, 1, limit)
    assert scale.shape == ()
    lone = weight_scales(matrix.T.reshape(1, -1), 0, limit)
    assert float(scale) == pytest.approx(float(lone[0]))
    finer = weight_scales(matrix, 1, limit)
    own = relative_error(matrix, quantize_channels(matrix, finer, 1, limit), finer, 1)
    assert own < relative_error(matrix, codes, scale, 1) < 0.05
    monkeypatch.setattr("edgeq.formats.onnx.int8._PIECE", 100)
    assert weight_scales(matrix, 1, limit, "tensor") == scale
    np.testing.assert_array_equal(quantize_channels(matrix, scale, 1, limit), codes)
