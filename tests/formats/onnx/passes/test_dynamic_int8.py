"""Dynamic int8, rule by rule, in ONNX Runtime before and after."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from onnx_graphs import Floats, Tiny, counts, error, names, normal, run

from edgeq.formats.errors import EdgeqError
from edgeq.formats.onnx.int8 import FULL_RANGE, SAFE_RANGE
from edgeq.formats.onnx.passes.dynamic_int8 import dynamic_int8
from edgeq.formats.onnx.passes.int8_weights import ERROR

CAP = 0.03  # of the output's own size: 8 bits of activation, 7 of weight
X = normal(9, 5, 16)
LAYER = {"DynamicQuantizeLinear": 1, "MatMulInteger": 1, "Cast": 1, "Mul": 2}


def expect_close(
    model: ir.Model, rewritten: int, *, limit: int = SAFE_RANGE, cap: float = CAP, x: Floats = X
) -> None:
    before = run(model, x=x)
    assert dynamic_int8(model, limit) == rewritten
    assert error(run(model, x=x), before) <= cap


def test_rule_1_matmul() -> None:
    b = Tiny()
    model = b.done(b.op("MatMul", b.x("n", 16), b.const("w", normal(1, 16, 8))), shapes=[["n", 8]])
    expect_close(model, 1)
    assert counts(model) == LAYER
    assert names(model) == {"w_int8", "w_scale"}
    assert model.graph.initializers["w_int8"].dtype == ir.DataType.INT8
    assert 0 < model.graph.initializers["w_int8"].meta[ERROR] < CAP


def test_full_range_is_a_little_nearer() -> None:
    errors = []
    for limit in (SAFE_RANGE, FULL_RANGE):
        b = Tiny()
        model = b.done(b.op("MatMul", b.x("n", 16), b.const("w", normal(1, 16, 8))), shapes=[["n", 8]])
        dynamic_int8(model, limit)
        errors.append(model.graph.initializers["w_int8"].meta[ERROR])
    assert errors[1] < errors[0] < 1.5 * errors[1]  # limiting pairs costs little


def test_three_dimensions_and_one() -> None:
    for shape in [("batch", "tokens", 16), (16,)]:
        b = Tiny()
        model = b.done(b.op("MatMul", b.x(*shape), b.const("w", normal(1, 16, 8))), shapes=[[*shape[:-1], 8]])
        expect_close(model, 1, x=normal(9, 2, 5, 16) if len(shape) == 3 else normal(9, 16))


def test_rule_2_a_shared_activation_is_quantized_once() -> None:
    b = Tiny()
    x = b.x("n", 16)
    values = [b.op("MatMul", x, b.const(f"w{i}", normal(i, 16, 8))) for i in range(3)]
    model = b.done(*values, shapes=[["n", 8]] * 3)
    expect_close(model, 3)
    assert counts(model) == {"DynamicQuantizeLinear": 1, "MatMulInteger": 3, "Cast": 3, "Mul": 6}


@pytest.mark.parametrize("trans_b", [0, 1])
@pytest.mark.parametrize("bias", ["none", "left out", "vector", "scalar", "matrix"])
def test_rule_3_gemm(trans_b: int, bias: str) -> None:
    w = normal(1, 16, 8)
    b = Tiny()
    shape = {"vector": (8,), "scalar": (), "matrix": (5, 8)}.get(bias)
    third = [] if bias == "none" else [b.const("b", normal(2, *shape)) if shape is not None else None]
    y = b.raw(
        "Gemm", b.x(5, 16), b.const("w", np.ascontiguousarray(w.T) if trans_b else w), *third, transB=trans_b
    )
    model = b.done(y, shapes=[[5, 8]])
    expect_close(model, 1)
    assert counts(model)["Gemm"] == 0
    assert counts(model)["Add"] == (shape is not None)
    assert counts(model)["Transpose"] == trans_b


def test_a_weight_through_a_transpose() -> None:
    b = Tiny()
    weight = b.op("Transpose", b.const("w", normal(1, 8, 16)), perm=[1, 0])
    model = b.done(b.op("MatMul", b.x("n", 16), weight), shapes=[["n", 8]])
    expect_close(model, 1)
    assert counts(model) == LAYER | {"Transpose": 1}
    assert model.graph.initializers["w_int8"].shape == ir.Shape([8, 16])


def test_a_weight_shared_by_two_nodes_is_stored_once() -> None:
    b = Tiny()
    x, w = b.x("n", 16), b.const("w", normal(1, 16, 8))
    y = b.op("MatMul", b.op("Neg", x), w)
    model = b.done(b.op("MatMul", x, w), y, shapes=[["n", 8]] * 2)
    expect_close(model, 2)
    assert names(model) == {"w_int8", "w_scale"}


def test_a_square_weight_read_both_ways_has_scales_for_each() -> None:
    w = normal(1, 16, 16) * np.geomspace(0.01, 100, 16, dtype=np.float32)
    b = Tiny()
    x, weight = b.x("n", 16), b.const("w", w)
    model = b.done(b.op("MatMul", x, weight), b.op("Gemm", x, weight, transB=1), shapes=[["n", 16]] * 2)
    before = run(model, x=X)
    assert dynamic_int8(model, SAFE_RANGE) == 2
    after = run(model, x=X)
    columns = np.linalg.norm(after[0] - before[0], axis=0) / np.linalg.norm(before[0], axis=0)
    assert columns.max() <= 2 * CAP  # scales of the other axis would be off by hundreds
    assert error(after[1:], before[1:]) <= CAP


def test_a_weight_that_another_node_reads_stays_too() -> None:
    b = Tiny()
    x, w = b.x("n", 16), b.const("w", normal(1, 16, 16))
    model = b.done(b.op("MatMul", x, w), b.op("Relu", w), w, shapes=[["n", 16], [16, 16], [16, 16]])
    expect_close(model, 1)
    assert names(model) == {"w", "w_int8", "w_scale"}


def test_activation_and_product_as_graph_outputs() -> None:
    b = Tiny()
    h = b.op("Relu", b.x("n", 16))
    y = b.op("MatMul", h, b.const("w", normal(1, 16, 8)))
    model = b.done(y, h, b.op("Neg", y), shapes=[["n", 8], ["n", 16], ["n", 8]])
    expect_close(model, 1)
    assert [value.name for value in model.graph.outputs] == ["y0", "y1", "y2"]


@pytest.mark.parametrize("op", ["MatMul", "Gemm"])
def test_layers_that_read_each_other(op: str) -> None:
    b = Tiny()
    y = b.x("n", 16)
    for i in range(3):
        y = b.op(op, y, b.const(f"w{i}", normal(i, 16, 16, size=0.25)))
    model = b.done(y, shapes=[["n", 16]])
    expect_close(model, 3, cap=2 * CAP)
    assert counts(model)["MatMulInteger"] == 3


def test_only_the_named() -> None:
    b = Tiny()
    x = b.x("n", 16)
    values = [b.op("MatMul", x, b.const(f"w{i}", normal(i, 16, 8)), name=f"fc{i}") for i in range(3)]
    model = b.done(*values, shapes=[["n", 8]] * 3)
    before = run(model, x=X)
    assert dynamic_int8(model, SAFE_RANGE, only=["fc1"]) == 1
    after = run(model, x=X)
    assert counts(model) == LAYER | {"MatMul": 2}
    np.testing.assert_array_equal(after[0], before[0])
    assert 0 < error(after[1:2], before[1:2]) <= CAP


def test_what_is_left_alone() -> None:
    b = Tiny()
    x = b.x("n", 16)
    double = b.op(
        "MatMul", b.op("Cast", x, to=ir.DataType.DOUBLE), b.const("d", normal(1, 16, 8).astype("f8"))
    )
    values = [
        b.op("MatMul", x, b.op("Transpose", x, perm=[1, 0])),
        b.op("MatMul", x, b.const("three", normal(1, 2, 16, 8))),
        b.op("Cast", double, to=ir.DataType.FLOAT),
        b.op("Gemm", x, b.const("g", normal(1, 16, 8)), alpha=0.5),
    ]
    model = b.done(*values, shapes=[["n", "n"], [2, "n", 8], ["n", 8], ["n", 8]])
    types = counts(model)
    expect_close(model, 0, cap=0)
    assert counts(model) == types


def test_zeros_and_an_empty_graph() -> None:
    b = Tiny()
    x = b.x("n", 16)
    model = b.done(b.op("MatMul", x, b.const("w", np.zeros((16, 8), np.float32))), shapes=[["n", 8]])
    expect_close(model, 1, cap=0)
    b = Tiny()
    expect_close(b.done(b.op("Relu", b.x("n", 16)), shapes=[["n", 16]]), 0, cap=0)


def test_names_that_the_graph_has_already() -> None:
    b = Tiny()
    x = b.x("n", 16, name="x")
    first = b.op("MatMul", x, b.const("w", normal(1, 16, 16)))
    y = b.op("MatMul", b.op("Relu", first), b.const("w_int8", normal(2, 16, 16, size=0.25)))
    y = b.op("Mul", y, b.const("w_scale", normal(3, 16)))
    model = b.done(y, shapes=[["n", 16]])
    expect_close(model, 2, cap=2 * CAP)


def test_an_old_opset_is_an_error() -> None:
    b = Tiny()
    model: Any = b.done(b.op("MatMul", b.x("n", 16), b.const("w", normal(1, 16, 8))), shapes=[["n", 8]])
    model.opset_imports[""] = 11
    with pytest.raises(EdgeqError, match="opset 11"):
        dynamic_int8(model, SAFE_RANGE)
