"""GELU by tanh where 8-bit codes are made of it, rule by rule."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from onnx_graphs import Tiny, counts, error, normal, run

from edgeq.formats.onnx.passes.tanh_gelu import tanh_gelu

X = normal(1, 64, 16, size=2)
CODE = 0.05  # the step of the codes


def gelu(b: Tiny, x: ir.Value, order: str) -> ir.Value:
    half, one = b.constant(0.5, np.float32), b.constant(1.0, np.float32)
    if order == "operator":
        return b.op("Gelu", x)
    if order == "half first":
        scaled = b.op("Mul", b.constant(0.5**0.5, np.float32), x)
        return b.op("Mul", b.op("Mul", x, half), b.op("Add", one, b.op("Erf", scaled)))
    erf = b.op("Erf", b.op("Div", x, b.constant(2**0.5, np.float32)))
    share = b.op("Add", erf, one)
    if order == "half last":
        return b.op("Mul", b.op("Mul", x, share), half)
    if order == "twice x":
        return b.op("Mul", b.op("Mul", x, share), x)
    return b.op("Mul", x, b.op("Mul", share, half))


def rounded(b: Tiny, x: ir.Value, dtype: type[np.generic] = np.uint8) -> ir.Value:
    grid = b.const("step", np.float32(CODE)), b.const("zero", np.array(4, dtype))
    return b.op("DequantizeLinear", b.op("QuantizeLinear", x, *grid), *grid)


def graph(order: str) -> ir.Model:
    b = Tiny()
    x = b.op("Add", b.x("n", 16), b.const("bias", normal(2, 16)))
    return b.done(rounded(b, gelu(b, x, order)), shapes=[["n", 16]])


@pytest.mark.parametrize("order", ["operator", "half first", "half last", "half in between"])
def test_rules_1_and_3(order: str) -> None:
    model = graph(order)
    before = run(model, x=X)
    assert tanh_gelu(model) == 1
    assert counts(model) == {"Add": 1, "Gelu": 1, "QuantizeLinear": 1, "DequantizeLinear": 1}
    assert model.opset_imports[""] == 20
    assert np.abs(run(model, x=X)[0] - before[0]).max() <= 1.01 * CODE  # one code, and seldom
    assert error(run(model, x=X), before) <= 0.005


def test_what_only_looks_like_it_stays() -> None:
    model = graph("twice x")
    assert tanh_gelu(model) == 0
    assert model.opset_imports[""] == 17


def test_rule_2() -> None:
    b = Tiny()
    y = gelu(b, b.x("n", 16), "half last")
    model = b.done(rounded(b, y), b.op("Neg", y), shapes=[["n", 16]] * 2)
    assert tanh_gelu(model) == 0
