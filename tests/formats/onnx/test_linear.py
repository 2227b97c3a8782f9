"""Which nodes count as linear layers."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from onnx_graphs import Tiny, normal

from edgeq.formats.onnx.linear import find_linears

W = normal(1, 4, 3)


def only(model: ir.Model) -> Any:
    (linear,) = find_linears(model)
    return linear


def test_matmul() -> None:
    b = Tiny()
    x = b.x("n", 4)
    linear = only(b.done(b.op("MatMul", x, b.const("w", W), name="fc"), shapes=[["n", 3]]))
    assert (linear.name, linear.transposed) == ("fc", False)
    assert linear.activation is x
    assert linear.weight.name == "w"
    np.testing.assert_array_equal(linear.matrix(), W)


@pytest.mark.parametrize("node_name", ["", None])
def test_named_after_its_weight(node_name: str | None) -> None:
    b = Tiny()
    model = b.done(b.op("MatMul", b.x("n", 4), b.const("w", W)), shapes=[["n", 3]])
    linear = only(model)
    linear.node.name = node_name
    assert linear.name == "w"


@pytest.mark.parametrize(
    ("op", "attributes", "perm", "transposed"),
    [
        ("MatMul", {}, [1, 0], True),
        ("MatMul", {}, None, True),
        ("Gemm", {}, "none", False),
        ("Gemm", {"transB": 1}, "none", True),
        ("Gemm", {"transB": 1}, [1, 0], False),
        ("Gemm", {"alpha": 1.0, "beta": 1.0, "transA": 0, "transB": 0}, [1, 0], True),
    ],
)
def test_layouts(op: str, attributes: dict[str, Any], perm: Any, transposed: bool) -> None:
    b = Tiny()
    weight = stored = b.const("w", W.T if transposed else W)
    if perm != "none":
        weight = b.op("Transpose", stored, **({"perm": perm} if perm else {}))
    linear = only(b.done(b.op(op, b.x("n", 4), weight, **attributes), shapes=[["n", 3]]))
    assert linear.transposed is transposed
    assert linear.weight is stored
    np.testing.assert_array_equal(linear.matrix(), W)


@pytest.mark.parametrize("attributes", [{"alpha": 0.5}, {"beta": 2.0}, {"transA": 1}])
def test_scaled_or_transposed_gemm_is_none(attributes: dict[str, Any]) -> None:
    b = Tiny()
    y = b.op("Gemm", b.x(4, 4), b.const("w", W), b.const("b", normal(2, 3)), **attributes)
    assert not list(find_linears(b.done(y, shapes=[[4, 3]])))


def test_what_else_is_none() -> None:
    b = Tiny()
    x, other = b.x("n", 4), b.x(4, 4, name="other")
    identity = b.op("Transpose", b.const("w_identity", W), perm=[0, 1])
    values = [
        b.op("MatMul", x, other),  # two activations
        b.op("MatMul", b.const("left", normal(1, 4, 4)), other),  # the constant is first
        b.op("MatMul", x, b.const("three", normal(1, 2, 4, 3))),
        b.op("MatMul", x, b.const("vector", normal(1, 4))),
        b.op("MatMul", b.op("Cast", x, to=ir.DataType.DOUBLE), b.const("double", W.astype(np.float64))),
        b.op("MatMul", b.op("Cast", x, to=ir.DataType.INT32), b.const("int", W.astype(np.int32))),
        b.op("MatMul", x, identity),
        b.op("MatMul", x, b.op("Relu", b.const("computed", W))),
        b.op("MatMul", x, b.const("foreign", W), domain="somewhere.else"),
    ]
    model = b.done(*values, shapes=[["n"]] * len(values))
    assert not list(find_linears(model))


def test_a_weight_that_the_caller_may_replace_is_no_constant() -> None:
    b = Tiny()
    w = b.const("w", W)
    model = b.done(b.op("MatMul", b.x("n", 4), w), shapes=[["n", 3]])
    model.graph.inputs.append(w)
    assert not list(find_linears(model))


def test_in_order_and_activation_follows_the_node() -> None:
    b = Tiny()
    x = b.x("n", 4)
    first = b.op("MatMul", x, b.const("w0", normal(1, 4, 4)))
    model = b.done(b.op("MatMul", first, b.const("w1", W)), shapes=[["n", 3]])
    one, two = find_linears(model)
    assert [one.weight.name, two.weight.name] == ["w0", "w1"]
    two.node.replace_input_with(0, x)
    assert two.activation is x
