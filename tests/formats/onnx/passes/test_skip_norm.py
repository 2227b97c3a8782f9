"""Sums taken into the norms, rule by rule."""

from __future__ import annotations

import onnx_ir as ir
import pytest
from onnx_graphs import Floats, Tiny, counts, error, normal, run_bytes

from edgeq.formats.onnx.passes.skip_norm import skip_norm

X = normal(1, 2, 3, 16)


def norm(b: Tiny, x: ir.Value, kind: str) -> ir.Value:
    if kind == "LayerNormalization":
        return b.norm(x, b.const("scale", normal(2, 16)), b.const("bias", normal(3, 16)))
    return b.op(kind, x, b.const("scale", normal(2, 16)), axis=-1, epsilon=1e-5, stash_type=1)


def run(model: ir.Model) -> list[Floats]:
    """Unchecked: SimplifiedLayerNormalization is no operator of ONNX."""
    return run_bytes(ir.to_proto(model).SerializeToString(), x=X)


@pytest.mark.parametrize("kind", ["SimplifiedLayerNormalization", "LayerNormalization"])
def test_rules_1_and_3(kind: str) -> None:
    b = Tiny()
    x = b.x("batch", "tokens", 16)
    total = b.op("Add", b.op("Relu", x), b.op("Neg", x))
    y, again = norm(b, total, kind), norm(b, total, kind)
    outputs = b.op("Neg", y), b.op("Neg", again), b.op("Mul", total, x)
    model = b.done(*outputs, shapes=[["batch", "tokens", 16]] * 3)
    before = run(model)
    assert skip_norm(model) == 1
    fused = "SkipSimplifiedLayerNormalization" if kind.startswith("Simplified") else "SkipLayerNormalization"
    assert counts(model)[fused] == counts(model)[kind] == 1
    assert counts(model)["Add"] == 0
    assert error(run(model), before) <= 1e-6


def test_rule_2_a_bias_is_no_residual() -> None:
    b = Tiny()
    biased = b.op("Add", b.op("Relu", b.x("batch", "tokens", 16)), b.const("bias", normal(4, 16)))
    y = norm(b, biased, "SimplifiedLayerNormalization")
    model = b.done(b.op("Neg", y), shapes=[["batch", "tokens", 16]])
    assert skip_norm(model) == 0


def test_a_sum_that_is_an_output_stays() -> None:
    b = Tiny()
    x = b.x("batch", "tokens", 16)
    total = b.op("Add", b.op("Relu", x), b.op("Neg", x))
    y = b.op("Neg", norm(b, total, "SimplifiedLayerNormalization"))
    model = b.done(y, total, shapes=[["batch", "tokens", 16]] * 2)
    assert skip_norm(model) == 0
