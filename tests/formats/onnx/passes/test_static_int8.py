"""Static int8 in QDQ form, rule by rule, in ONNX Runtime before and after."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from onnx_graphs import Floats, Tiny, counts, error, f32, fused, names, normal, observe, run

from edgeq.formats.onnx.int8 import SAFE_RANGE, ActivationRange
from edgeq.formats.onnx.passes.static_int8 import static_int8

CAP = 0.03
X = normal(9, 5, 16)
LAYER = {"QuantizeLinear": 1, "DequantizeLinear": 2, "MatMul": 1}


def ranges_of(model: ir.Model, **feeds: Floats) -> dict[str, ActivationRange]:
    """The true range of every linear layer's input, from a float run."""
    return {
        name: ActivationRange(float(value.min()), float(value.max()))
        for name, value in observe(model, **feeds).items()
    }


def expect_close(model: ir.Model, rewritten: int, *, cap: float = CAP, x: Floats = X) -> None:
    before, ranges = run(model, x=x), ranges_of(model, x=x)
    assert static_int8(model, SAFE_RANGE, ranges) == rewritten
    assert error(run(model, x=x), before) <= cap


def test_rule_1_matmul() -> None:
    b = Tiny()
    model = b.done(b.op("MatMul", b.x("n", 16), b.const("w", normal(1, 16, 8))), shapes=[["n", 8]])
    expect_close(model, 1)
    assert counts(model) == LAYER
    assert names(model) == {"x_scale", "x_zero_point", "w_int8", "w_scale", "w_zero_point"}
    zeros = model.graph.initializers["w_zero_point"].const_value
    assert zeros is not None
    assert zeros.dtype == ir.DataType.INT8
    assert not zeros.numpy().any()


def test_softmax_norms_and_sums_stay_float() -> None:
    b = Tiny()
    x = b.x("n", 16)
    h = b.norm(b.op("Add", x, b.op("Softmax", x, axis=-1)), b.const("g", normal(1, 16)))
    model = b.done(b.op("MatMul", h, b.const("w", normal(2, 16, 8))), shapes=[["n", 8]])
    expect_close(model, 1)
    assert counts(model) == LAYER | {"LayerNormalization": 1, "Add": 1, "Softmax": 1}


def test_rule_2_a_shared_activation_has_one_pair() -> None:
    b = Tiny()
    x = b.x("n", 16)
    values = [b.op("MatMul", x, b.const(f"w{i}", normal(i, 16, 8))) for i in range(3)]
    model = b.done(*values, shapes=[["n", 8]] * 3)
    expect_close(model, 3)
    assert counts(model) == {"QuantizeLinear": 1, "DequantizeLinear": 4, "MatMul": 3}


@pytest.mark.parametrize("trans_b", [0, 1])
@pytest.mark.parametrize("bias", ["none", "left out", "vector", "a row", "a number"])
def test_rules_3_and_5_gemm(trans_b: int, bias: str, tmp_path: Path) -> None:
    w = normal(1, 16, 8)
    b = Tiny()
    thirds: dict[str, list[Any]] = {
        "none": [],
        "left out": [None],
        "vector": [b.const("b", normal(2, 8))],
        "a row": [b.const("row", normal(2, 1, 8))],
        "a number": [b.const("number", normal(2, 1))],
    }
    y = b.raw(
        "Gemm",
        b.x("n", 16),
        b.const("w", np.ascontiguousarray(w.T) if trans_b else w),
        *thirds[bias],
        transB=trans_b,
    )
    model = b.done(y, shapes=[["n", 8]])
    expect_close(model, 1)
    if bias == "a number":
        assert counts(model)["MatMul"] == counts(model)["Add"] == 1
    else:
        has_bias = int(bias in ("vector", "a row"))
        assert counts(model) == {"QuantizeLinear": 1, "DequantizeLinear": 2 + has_bias, "Gemm": 1}
        assert fused(model, tmp_path)["QGemm"] == 1


@pytest.mark.parametrize("rank", [2, 3])
def test_rule_4_product_and_sum(rank: int, tmp_path: Path) -> None:
    b = Tiny()
    product = b.op("MatMul", b.x(*["n", "m"][: rank - 1], 16), b.const("w", normal(1, 16, 8)))
    model = b.done(b.op("Add", b.const("b", normal(2, 8)), product), shapes=[[*["n", "m"][: rank - 1], 8]])
    expect_close(model, 1, x=normal(9, *[5, 3][: rank - 1], 16))
    assert fused(model, tmp_path)["QGemm" if rank == 2 else "MatMulIntegerToFloat"] == 1


def test_rule_4_products_that_are_added(tmp_path: Path) -> None:
    b = Tiny()
    x = b.x("n", 16)
    products = [b.op("MatMul", x, b.const(f"w{i}", normal(i, 16, 8))) for i in range(2)]
    model = b.done(b.op("Add", *products), shapes=[["n", 8]])
    expect_close(model, 2)
    assert fused(model, tmp_path)["QGemm"] == 2


def test_rule_5_a_channel_without_weights_keeps_its_bias() -> None:
    b = Tiny()
    w = normal(1, 16, 8)
    w[:, 3] = 0
    model = b.done(b.op("Gemm", b.x("n", 16), b.const("w", w), b.const("b", normal(2, 8))), shapes=[["n", 8]])
    expect_close(model, 1)
    np.testing.assert_allclose(run(model, x=X)[0][:, 3], normal(2, 8)[3], rtol=1e-6)


def test_rule_5_a_bias_beyond_int32() -> None:
    b = Tiny()
    w = normal(1, 16, 8)
    w[:, 3] *= 1e-9
    model = b.done(
        b.op("Gemm", b.x("n", 16), b.const("w", w), b.const("b", f32([900] * 8))), shapes=[["n", 8]]
    )
    expect_close(model, 1)


def test_a_weight_through_a_transpose() -> None:
    b = Tiny()
    weight = b.op("Transpose", b.const("w", normal(1, 8, 16)))
    model = b.done(b.op("MatMul", b.x("n", 16), weight), shapes=[["n", 8]])
    expect_close(model, 1)
    assert counts(model) == LAYER | {"Transpose": 1}


def test_a_weight_shared_by_two_nodes_is_stored_once() -> None:
    b = Tiny()
    x, w = b.x("n", 16), b.const("w", normal(1, 16, 8))
    model = b.done(b.op("MatMul", x, w), b.op("MatMul", b.op("Neg", x), w), shapes=[["n", 8]] * 2)
    expect_close(model, 2)
    assert sum(name.startswith("w") for name in names(model)) == 3


def test_a_square_weight_read_both_ways() -> None:
    b = Tiny()
    x, w = b.x("n", 16), b.const("w", normal(1, 16, 16) * np.geomspace(0.1, 10, 16, dtype=np.float32))
    model = b.done(b.op("MatMul", x, w), b.op("Gemm", x, w, transB=1), shapes=[["n", 16]] * 2)
    expect_close(model, 2)


def test_activation_and_product_as_graph_outputs() -> None:
    b = Tiny()
    h = b.op("Relu", b.x("n", 16))
    y = b.op("MatMul", h, b.const("w", normal(1, 16, 8)))
    model = b.done(y, h, b.op("Neg", y), shapes=[["n", 8], ["n", 16], ["n", 8]])
    before = run(model, x=X)
    expect_close(model, 1)
    assert [value.name for value in model.graph.outputs] == ["y0", "y1", "y2"]
    np.testing.assert_array_equal(run(model, x=X)[1], before[1])  # an output is not rounded


@pytest.mark.parametrize("op", ["MatMul", "Gemm"])
def test_layers_that_read_each_other(op: str) -> None:
    """The ranges are known by names, which a rewritten layer keeps."""
    b = Tiny()
    y = b.x("n", 16)
    for i in range(3):
        y = b.op(op, y, b.const(f"w{i}", normal(i, 16, 16, size=0.25)))
    model = b.done(y, shapes=[["n", 16]])
    expect_close(model, 3, cap=2 * CAP)
    assert counts(model) == {"QuantizeLinear": 3, "DequantizeLinear": 6, op: 3}


@pytest.mark.parametrize("ranges", [{}, {"other": ActivationRange(-1, 1)}])
def test_without_a_range_a_layer_stays_float(ranges: Mapping[str, ActivationRange]) -> None:
    b = Tiny()
    model = b.done(b.op("MatMul", b.x("n", 16), b.const("w", normal(1, 16, 8))), shapes=[["n", 8]])
    before = run(model, x=X)
    assert static_int8(model, SAFE_RANGE, ranges) == 0
    assert counts(model) == {"MatMul": 1}
    np.testing.assert_array_equal(run(model, x=X)[0], before[0])


def test_values_beyond_the_range_are_clipped() -> None:
    b = Tiny()
    model = b.done(b.op("MatMul", b.x("n", 2), b.const("w", np.eye(2, dtype=np.float32))), shapes=[["n", 2]])
    static_int8(model, SAFE_RANGE, {"x": ActivationRange(-1, 1)})
    np.testing.assert_allclose(run(model, x=f32([[-9, 9]]))[0], [[-1, 1]], atol=0.02)


def test_names_that_the_graph_has_already() -> None:
    b = Tiny()
    x = b.x("n", 16)
    y = b.op("MatMul", x, b.const("w", normal(1, 16, 16)))
    for name in ("x_scale", "x_zero_point", "w_scale", "w_zero_point"):
        y = b.op("Add", y, b.const(name, normal(len(name), 16)))
    expect_close(b.done(y, shapes=[["n", 16]]), 1)


def test_what_is_left_alone() -> None:
    b = Tiny()
    x = b.x("n", 16)
    values = [
        b.op("MatMul", x, b.op("Transpose", x, perm=[1, 0])),
        b.op("MatMul", x, b.const("three", normal(1, 2, 16, 8))),
    ]
    model = b.done(*values, shapes=[["n", "n"], [2, "n", 8]])
    before = run(model, x=X)
    assert static_int8(model, SAFE_RANGE, {"x": ActivationRange(-1, 1)}) == 0
    assert error(run(model, x=X), before) == 0
