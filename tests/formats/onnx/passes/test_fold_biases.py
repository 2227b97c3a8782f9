"""Biases that go where they cost nothing, rule by rule; in float the answers stay."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from onnx_graphs import Floats, Tiny, counts, error, names, normal, run

from edgeq.formats.onnx.passes.fold_biases import fold_attention_biases, fold_residual_biases

EXACT = 1e-5
HEADS, EACH, WIDTH = 4, 8, 32
X = normal(1, 2, 5, WIDTH)
SHAPE: list[int | str] = ["batch", "tokens", WIDTH]
TO_HEADS, BACK = np.array([0, 0, HEADS, EACH]), np.array([0, 0, WIDTH])


def linear(b: Tiny, x: ir.Value, name: str, seed: int) -> ir.Value:
    product = b.op("MatMul", x, b.const(f"{name}.weight", normal(seed, WIDTH, WIDTH, size=0.2)), name=name)
    return b.op("Add", b.const(f"{name}.bias", normal(seed + 100, WIDTH)), product)


def heads(b: Tiny, x: ir.Value, perm: list[int]) -> ir.Value:
    return b.op("Transpose", b.op("Reshape", x, b.constant(TO_HEADS)), perm=perm)


def attention(b: Tiny, x: ir.Value, on_keys: str = "", softmax_axis: int = -1) -> ir.Value:
    """Post-norm attention as exporters write it; ``on_keys`` is an operator applied to the keys before the scores."""
    q, k, v = (linear(b, x, name, seed) for seed, name in enumerate("qkv", start=2))
    q, v = heads(b, q, [0, 2, 1, 3]), heads(b, v, [0, 2, 1, 3])
    k = heads(b, k, [0, 2, 3, 1])
    k = b.op(on_keys, k) if on_keys else k
    scores = b.op("Div", b.op("MatMul", q, k), b.constant(8**0.5, np.float32))
    mask = b.const("mask", normal(9, 1, 1, 1, 5) * np.float32(3))
    mixed = b.op("MatMul", b.op("Softmax", b.op("Add", scores, mask), axis=softmax_axis), v)
    joined = b.op("Reshape", b.op("Transpose", mixed, perm=[0, 2, 1, 3]), b.constant(BACK))
    return b.op("Neg", linear(b, joined, "o", 7))


def vectors(b: Tiny) -> tuple[ir.Value, ir.Value]:
    return b.const("scale", normal(20, WIDTH)), b.const("shift", normal(21, WIDTH))


def before_and_after(model: ir.Model, fold: int, rules: str = "12") -> tuple[list[Floats], list[Floats]]:
    before = run(model, x=X)
    assert (fold_residual_biases if rules == "3" else fold_attention_biases)(model) == fold
    return run(model, x=X), before


def test_rules_1_and_2() -> None:
    b = Tiny()
    model = b.done(attention(b, b.x(*SHAPE)), shapes=[SHAPE])
    assert error(*before_and_after(model, 2)) <= EXACT
    assert {"q.bias"} == {name for name in names(model) if name.endswith(".bias")}
    assert counts(model)["Add"] == 3  # of queries, the mask, and the output, which holds the values' bias


@pytest.mark.parametrize(
    ("on_keys", "axis", "left"), [("Tanh", -1, 1), ("", 2, 0)], ids=["keys are changed", "over queries"]
)
def test_rule_4(on_keys: str, axis: int, left: int) -> None:
    b = Tiny()
    model = b.done(attention(b, b.x(*SHAPE), on_keys, axis), shapes=[SHAPE])
    assert error(*before_and_after(model, left)) <= EXACT


def test_values_that_are_an_output_keep_their_bias() -> None:
    b = Tiny()
    x = b.x(*SHAPE)
    y = attention(b, x)
    model = b.done(y, shapes=[SHAPE])
    value = next(
        node.outputs[0] for node in model.graph if node.inputs[0] is model.graph.initializers["v.bias"]
    )
    value.shape, value.type = ir.Shape(SHAPE), ir.TensorType(ir.DataType.FLOAT)
    model.graph.outputs.append(value)
    assert error(*before_and_after(model, 1)) <= EXACT


@pytest.mark.parametrize("shared", [False, True])
def test_rule_3(shared: bool) -> None:
    b = Tiny()
    x = b.x(*SHAPE)
    residual = b.norm(x, *vectors(b))
    total = b.op("Add", residual, linear(b, x, "o", 7))
    outputs = [b.op("Neg", total), *([b.op("Tanh", residual)] if shared else [])]
    model = b.done(*outputs, shapes=[SHAPE] * len(outputs))
    assert error(*before_and_after(model, 0 if shared else 1, "3")) <= EXACT
    assert counts(model)["Add"] == (2 if shared else 1)


def test_rule_5() -> None:
    b = Tiny()
    x = b.x("rows", WIDTH)
    model = b.done(b.op("Add", b.norm(x, *vectors(b)), linear(b, x, "o", 7)), shapes=[["rows", WIDTH]])
    assert fold_residual_biases(model) == 0
