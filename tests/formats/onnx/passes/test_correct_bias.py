"""What rounding shifts on average goes into the bias."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from foreign_graphs import answers, loaded, node, proto
from onnx_graphs import Floats, normal

from edgeq.formats.onnx.int8 import FULL_RANGE, SAFE_RANGE, ActivationRange
from edgeq.formats.onnx.passes.conv_int8 import conv_int8
from edgeq.formats.onnx.passes.correct_bias import correct_biases
from edgeq.formats.onnx.passes.static_int8 import static_int8

X = np.abs(normal(9, 64, 24)) + np.float32(1)  # far from a mean of zero
IMAGE = np.abs(normal(10, 8, 4, 6, 6)) + np.float32(1)
RANGES = {"x": ActivationRange(0, 8), "y": ActivationRange(-30, 30)}


def linear(kind: str) -> onnx.ModelProto:
    constants: dict[str, Floats] = {"w": normal(1, 24, 10) ** 3, "b": normal(2, 10)}
    nodes = {
        "matmul": [node("MatMul", ["x", "w"], ["m"], name="layer"), node("Add", ["m", "b"], ["y"])],
        "flipped": [node("MatMul", ["x", "w"], ["m"], name="layer"), node("Add", ["b", "m"], ["y"])],
        "gemm": [node("Gemm", ["x", "w", "b"], ["y"], name="layer")],
        "bare": [node("MatMul", ["x", "w"], ["m"], name="layer"), node("Relu", ["m"], ["y"])],
    }[kind]
    return proto(nodes, {"x": ["n", 24]}, {"y": 2}, constants if kind != "bare" else {"w": constants["w"]})


def shift(model: onnx.ModelProto, corrected: bool) -> float:
    """How far the mean of an output is off, at the most biased one; activations are hardly rounded."""
    copy = loaded(model)
    if corrected:
        assert correct_biases(copy, SAFE_RANGE, {"x": X.mean(axis=0, dtype=np.float64)}) == 1
    static_int8(copy, SAFE_RANGE, RANGES, wide=["x"])
    (got,), (expected,) = answers(copy, x=X), answers(model, x=X)
    return float(np.abs((got - expected).mean(axis=0)).max())


@pytest.mark.parametrize("kind", ["matmul", "flipped", "gemm"])
def test_the_mean_of_every_output_stays(kind: str) -> None:
    assert shift(linear(kind), corrected=True) < 0.02 * shift(linear(kind), corrected=False)


def test_a_product_without_a_bias_stays_as_it_is() -> None:
    assert correct_biases(loaded(linear("bare")), SAFE_RANGE, {"x": np.ones(24)}) == 0
    assert correct_biases(loaded(linear("gemm")), SAFE_RANGE, {"x": np.ones(24)}, only=["other"]) == 0
    assert correct_biases(loaded(linear("gemm")), SAFE_RANGE, {"x": np.ones(7)}) == 0


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("bias", [False, True])
def test_convolutions(groups: int, bias: bool) -> None:
    constants: dict[str, Floats] = {"k": normal(1, 8, 4 // groups, 3, 3) ** 3}
    constants |= {"b": normal(2, 8)} if bias else {}
    model = proto(
        [node("Conv", ["x", "k", *["b"][:bias]], ["y"], group=groups, name="layer")],
        {"x": ["n", 4, 6, 6]}, {"y": 4}, constants,
    )  # fmt: skip
    (expected,) = answers(model, x=IMAGE)
    ranges = {"x": ActivationRange(0, 8), "y": ActivationRange(float(expected.min()), float(expected.max()))}
    off = []
    for corrected in (False, True):
        copy = loaded(model)
        if corrected:
            means = {"x": IMAGE.mean(axis=(0, 2, 3), dtype=np.float64)}
            assert correct_biases(copy, FULL_RANGE, means) == 1
        conv_int8(copy, FULL_RANGE, ranges, wide=["x", "y"])
        off.append(float(np.abs((answers(copy, x=IMAGE)[0] - expected).mean(axis=(0, 2, 3))).max()))
    assert off[1] < 0.4 * off[0]
