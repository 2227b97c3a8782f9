"""SmoothQuant at a normalisation, rule by rule; in float it changes nothing."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from onnx_graphs import Floats, Tiny, counts, error, names, normal, run

from edgeq.formats.onnx.int8 import SAFE_RANGE
from edgeq.formats.onnx.passes.dynamic_int8 import dynamic_int8
from edgeq.formats.onnx.passes.smooth import smooth

EXACT = 1e-5
X = normal(9, 5, 16)
G, B = normal(1, 16) + np.float32(2), normal(2, 16)
OUTLIERS = np.where(np.arange(16) == 3, 50, 1).astype(np.float32)


def channel_max(*values: ir.Value) -> dict[str, Floats]:
    """Made-up maxima: whatever they are, the float result must stay."""
    return {str(value.name): OUTLIERS for value in values}


def expect_exact(model: ir.Model, maxima: dict[str, Floats]) -> dict[str, Floats]:
    before = run(model, x=X)
    folded = smooth(model, maxima)
    assert error(run(model, x=X), before) <= EXACT
    return folded


def weight(b: Tiny, index: int = 0, columns: int = 8) -> ir.Value:
    return b.const(f"w{index}", normal(10 + index, 16, columns))


@pytest.mark.parametrize("bias", ["none", "vector"])
def test_rule_2_a_norm_that_only_linears_read(bias: str) -> None:
    b = Tiny()
    third = [b.const("b", B)] if bias == "vector" else []
    h = b.op("LayerNormalization", b.x("n", 16), b.const("g", G), *third, axis=-1)
    values = [b.op("MatMul", h, weight(b, i)) for i in range(2)]
    model = b.done(*values, shapes=[["n", 8]] * 2)
    folded = expect_exact(model, channel_max(h))
    assert list(folded) == [h.name]
    assert np.exp(np.log(folded[str(h.name)]).mean()) == pytest.approx(1, rel=1e-5)
    assert np.argmax(folded[str(h.name)]) == 3
    assert counts(model) == {"LayerNormalization": 1, "MatMul": 2}
    assert len(names(model)) == (4 if bias == "vector" else 3)  # the old ones are gone


def test_rule_2_a_bias_written_as_left_out() -> None:
    """As some files have it; ONNX Runtime 1.31 crashes on it, so this one is not run."""
    b = Tiny()
    h = b.raw("LayerNormalization", b.x("n", 16), b.const("g", G), None, axis=-1)
    model = b.done(b.op("MatMul", h, weight(b)), shapes=[["n", 8]])
    assert smooth(model, channel_max(h))
    assert names(model) == {f"g_smooth_{h.name}", "w0_smooth"}


@pytest.mark.parametrize("output", [False, True])
def test_rule_3_a_norm_that_something_else_reads(output: bool) -> None:
    b = Tiny()
    h = b.norm(b.x("n", 16), b.const("g", G), b.const("b", B))
    y = b.op("MatMul", h, weight(b, 0, 16))
    values = (y, h) if output else (b.op("Add", y, h),)
    model = b.done(*values, shapes=[["n", 16]] * len(values))
    old = str(h.name)
    before = run(model, x=X)
    folded = smooth(model, channel_max(h))
    assert list(folded) == [f"{old}_smooth"]
    after = run(model, x=X)
    assert error(after, before) <= EXACT
    assert counts(model)["LayerNormalization"] == 2
    if output:
        np.testing.assert_array_equal(after[1], before[1])


@pytest.mark.parametrize("first", [False, True])
def test_rule_1_the_mul_of_an_rms_norm(first: bool) -> None:
    b = Tiny()
    x, g = b.x("n", 16), b.const("g", G)
    root = b.op("Sqrt", b.op("ReduceMean", b.op("Mul", x, x), axes=[-1], keepdims=1))
    normed = b.op("Div", x, root)
    h = b.op("Mul", g, normed) if first else b.op("Mul", normed, g)
    model = b.done(b.op("MatMul", h, weight(b)), shapes=[["n", 8]])
    assert expect_exact(model, channel_max(h))
    assert counts(model) == {"Mul": 2, "ReduceMean": 1, "Sqrt": 1, "Div": 1, "MatMul": 1}


def test_rule_1_a_scale_of_one_element() -> None:
    b = Tiny()
    h = b.op("Mul", b.x("n", 16), b.const("g", normal(1, 1)))
    model = b.done(b.op("MatMul", h, weight(b)), shapes=[["n", 8]])
    assert expect_exact(model, channel_max(h))


@pytest.mark.parametrize("trans_b", [0, 1])
def test_rule_4_gemm(trans_b: int) -> None:
    b = Tiny()
    h = b.norm(b.x("n", 16), b.const("g", G), b.const("b", B))
    w = normal(1, 8, 16) if trans_b else normal(1, 16, 8)
    y = b.op("Gemm", h, b.const("w", w), b.const("bias", normal(2, 8)), transB=trans_b)
    model = b.done(y, shapes=[["n", 8]])
    assert expect_exact(model, channel_max(h))
    assert "w_smooth" in names(model)
    assert "w" not in names(model)


def test_gamma_shared_by_two_norms() -> None:
    b = Tiny()
    x, g, bias = b.x("n", 16), b.const("g", G), b.const("b", B)
    h0, h1 = b.norm(x, g, bias), b.norm(b.op("Neg", x), g, bias)
    h2 = b.norm(b.op("Abs", x), g, bias)  # not folded: keeps the shared vectors
    y = [b.op("MatMul", h, weight(b, i)) for i, h in enumerate((h0, h1))]
    model = b.done(*y, h2, shapes=[["n", 8], ["n", 8], ["n", 16]])
    maxima = {str(h0.name): OUTLIERS, str(h1.name): OUTLIERS[::-1].copy()}
    assert len(expect_exact(model, maxima)) == 2
    assert {"g", "b"} <= names(model)


def test_two_norms_in_a_row_and_twice_smoothed() -> None:
    b = Tiny()
    h0 = b.norm(b.x("n", 16), b.const("g0", G))
    h1 = b.norm(b.op("Add", h0, b.op("MatMul", h0, weight(b, 0, 16))), b.const("g1", G))
    model = b.done(b.op("MatMul", h1, weight(b, 1)), h1, shapes=[["n", 8], ["n", 16]])
    folded = expect_exact(model, channel_max(h0, h1))
    assert len(folded) == 2
    assert len(expect_exact(model, dict.fromkeys(folded, OUTLIERS))) == 2


def test_the_name_of_the_second_norm_is_free() -> None:
    b = Tiny()
    h = b.norm(b.x("n", 16), b.const("g", G))
    h.name = "h"
    other = b.op("Relu", h)
    other.name = "h_smooth"
    y = b.op("Add", b.op("MatMul", h, weight(b, 0, 16)), other)
    model = b.done(y, shapes=[["n", 16]])
    assert list(expect_exact(model, channel_max(h))) == ["h_smooth_1"]


def test_int8_is_better_for_it() -> None:
    errors = []
    for with_smooth in (False, True):
        b = Tiny()
        h = b.norm(b.x("n", 16), b.const("g", G * OUTLIERS))
        model = b.done(b.op("MatMul", h, weight(b)), shapes=[["n", 8]])
        # Only what is not the outlier counts: its channel has no weight.
        w = model.graph.initializers["w0"]
        data = normal(10, 16, 8)
        data[3] *= 1e-3
        w.const_value = ir.tensor(data, name="w0")
        before = run(model, x=X)
        if with_smooth:
            smooth(model, {str(h.name): np.abs(G * OUTLIERS) * 2})
        dynamic_int8(model, SAFE_RANGE)
        errors.append(error(run(model, x=X), before))
    assert errors[1] < 0.6 * errors[0]


def left_alone() -> dict[str, tuple[ir.Model, ir.Value]]:
    """Graphs in which nothing may be folded, and the value that the linear layer reads."""
    cases = {}

    b = Tiny()
    h = b.op("Relu", b.x("n", 16))
    cases["no norm"] = b.done(b.op("MatMul", h, weight(b)), shapes=[["n", 8]]), h

    b = Tiny()
    x = b.x("n", 16)
    cases["an input"] = b.done(b.op("MatMul", x, weight(b)), shapes=[["n", 8]]), x

    b = Tiny()
    x = b.x("n", 16)
    h = b.op("Mul", x, b.op("Sigmoid", x))
    cases["a product of activations"] = b.done(b.op("MatMul", h, weight(b)), shapes=[["n", 8]]), h

    b = Tiny()
    h = b.op("Mul", b.x("n", 16), b.constant(2, np.float32))
    cases["a scalar"] = b.done(b.op("MatMul", h, weight(b)), shapes=[["n", 8]]), h

    b = Tiny()
    x = b.x("n", 16)
    h = b.norm(x, b.op("Neg", b.const("g", G)))
    cases["a scale that is computed"] = b.done(b.op("MatMul", h, weight(b)), shapes=[["n", 8]]), h

    b = Tiny()
    h = b.norm(b.x("n", 16), b.const("g", G), b.op("Neg", b.const("b", B)))
    cases["a bias that is computed"] = b.done(b.op("MatMul", h, weight(b)), shapes=[["n", 8]]), h

    b = Tiny()
    x = b.x("n", 16)
    h, w = b.norm(x, b.const("g", G)), weight(b)
    y = b.op("MatMul", b.op("Relu", x), w)
    cases["a shared weight"] = b.done(b.op("MatMul", h, w), y, shapes=[["n", 8]] * 2), h

    b = Tiny()
    h, table = b.norm(b.x("n", 16), b.const("g", G)), b.const("t", normal(1, 8, 16))
    y = b.op("MatMul", h, b.op("Transpose", table, perm=[1, 0]))
    cases["through a Transpose"] = b.done(y, shapes=[["n", 8]]), h

    b = Tiny()
    h, table = b.norm(b.x("n", 16), b.const("g", G)), b.const("t", normal(1, 16, 8))
    y = b.op("Gemm", h, b.op("Transpose", table, perm=[1, 0]), transB=1)
    cases["through a Transpose and transB"] = b.done(y, shapes=[["n", 8]]), h
    return cases


@pytest.mark.parametrize("case", left_alone())
def test_left_alone(case: str) -> None:
    model, h = left_alone()[case]
    before, types, constants = run(model, x=X), counts(model), names(model)
    assert smooth(model, channel_max(h)) == {}
    assert (counts(model), names(model)) == (types, constants)
    assert error(run(model, x=X), before) == 0


@pytest.mark.parametrize("maxima", ["none", "empty"])
def test_a_norm_without_statistics_is_left_alone(maxima: str) -> None:
    b = Tiny()
    h = b.norm(b.x("n", 16), b.const("g", G))
    model = b.done(b.op("MatMul", h, weight(b)), shapes=[["n", 8]])
    assert smooth(model, {str(h.name): np.zeros(0, np.float32)} if maxima == "empty" else {}) == {}


def test_dead_channels_and_zero_weights() -> None:
    b = Tiny()
    w = normal(10, 16, 8)
    w[2] = 0
    h = b.norm(b.x("n", 16), b.const("g", G), b.const("b", B))
    model = b.done(b.op("MatMul", h, b.const("w", w)), shapes=[["n", 8]])
    maxima = OUTLIERS.copy()
    maxima[5] = 0
    folded = expect_exact(model, {str(h.name): maxima})
    assert np.isfinite(folded[str(h.name)]).all()


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_alpha(alpha: float) -> None:
    b = Tiny()
    h = b.norm(b.x("n", 16), b.const("g", G))
    model = b.done(b.op("MatMul", h, weight(b)), shapes=[["n", 8]])
    before = run(model, x=X)
    smooth(model, channel_max(h), alpha)
    assert error(run(model, x=X), before) <= EXACT


def test_the_second_output_of_a_norm_is_no_norm() -> None:
    b = Tiny()
    h, mean = b.tape.op_multi_out(
        "LayerNormalization", [b.x("n", 16), b.const("g", G)], {"axis": -1}, num_outputs=2
    )
    y = b.op("MatMul", mean, b.const("w", normal(1, 1, 8)))
    model = b.done(y, h, shapes=[["n", 8], ["n", 16]])
    assert smooth(model, {str(mean.name): np.ones(1, np.float32)}) == {}
