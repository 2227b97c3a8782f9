"""Random small graphs through all passes: valid, never a crash, the answer kept within the error of int8."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx_graphs import Tiny, counts, error, normal, observe, run

from edgeq.formats.onnx.int8 import SAFE_RANGE, ActivationRange
from edgeq.formats.onnx.linear import find_linears
from edgeq.formats.onnx.passes.dynamic_int8 import dynamic_int8
from edgeq.formats.onnx.passes.embedding_int8 import embedding_int8
from edgeq.formats.onnx.passes.smooth import smooth
from edgeq.formats.onnx.passes.static_int8 import static_int8

WIDTH = 16
IDS = np.random.default_rng(5).integers(0, 32, (16,))
# Only SAFE_RANGE: without VNNI, the full range saturates whatever the graph.
# Errors of a chain add up; a wrong graph is off by its own size.
CAP = 0.15

steps = st.lists(
    st.tuples(
        st.sampled_from(["MatMul", "Gemm", "GemmT", "MatMulT", "tied", "Add", "Norm", "Mul", "Relu"]),
        st.integers(0, 100),  # which value it reads
        st.integers(0, 100),  # which second value (Add), or which weight
        st.booleans(),  # a bias; a weight shared with the step of the same number
    ),
    min_size=1,
    max_size=8,
)


def build(plan: list[tuple[str, int, int, bool]], outputs: list[int]) -> ir.Model:
    """A graph over ``[16, WIDTH]``: every step reads any value before it."""
    b = Tiny()
    table = b.const("table", normal(0, 32, WIDTH))
    ids = b.input("ids", ir.DataType.INT64, [16])
    values = [b.op("Gather", table, ids)]
    square = b.op("MatMul", values[0], b.op("Transpose", table, perm=[1, 0]))  # a tied head, [16, 32]
    tied = b.op("MatMul", square, b.const("down", normal(1, 32, WIDTH, size=0.05)))
    for index, (kind, first, second, flag) in enumerate(plan):
        x = values[first % len(values)]
        key = f"w{second % 3}" if flag else f"step{index}"
        w = b.const(key, normal(second % 3 if flag else 50 + index, WIDTH, WIDTH, size=WIDTH**-0.5))
        vector = b.const(f"vector{second % 4}", normal(100 + second % 4, WIDTH, size=0.2) + np.float32(1))
        bias: list[ir.Value | None] = [vector] if flag else [None] if second % 2 else []
        match kind:
            case "MatMul":
                y = b.op("MatMul", x, w)
            case "MatMulT":
                y = b.op("MatMul", x, b.op("Transpose", w, perm=[1, 0]))
            case "Gemm":
                y = b.raw("Gemm", x, w, *bias)
            case "GemmT":
                y = b.raw("Gemm", x, w, *bias, transB=1)
            case "tied":
                y = tied
            case "Add":
                y = b.op("Add", x, values[second % len(values)])
            case "Norm":
                y = b.op("LayerNormalization", x, vector, *bias, axis=-1)
            case "Mul":
                y = b.op("Mul", x, vector)
            case _:
                y = b.op("Add", b.op("Relu", x), vector)  # not all zeros
        values.append(y)
    chosen = [values[-1], *(values[i % len(values)] for i in outputs)]
    return b.done(*chosen, shapes=[[16, WIDTH]] * len(chosen))


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(steps, st.lists(st.integers(0, 100), max_size=2), st.data())
def test_every_pass_keeps_the_answer(
    plan: list[tuple[str, int, int, bool]], outputs: list[int], data: Any
) -> None:
    model = build(plan, outputs)
    before = run(model, ids=IDS)
    output_names = [value.name for value in model.graph.outputs]

    if data.draw(st.booleans(), "embedding first"):
        embedding_int8(model, min_rows=8)
    else:
        smooth(model, {name: np.abs(value).max(axis=0) for name, value in observe(model, ids=IDS).items()})
        assert error(run(model, ids=IDS), before) <= 5e-4  # float, after up to ten layers
    linears = list(find_linears(model))
    static = data.draw(st.sampled_from(["none", "some", "all"]), "static")
    ranges = {
        name: ActivationRange(float(value.min()), float(value.max()))
        for name, value in observe(model, ids=IDS).items()
    }
    if static == "some":
        only = [linear.name for linear in linears[::2]]
        assert dynamic_int8(model, SAFE_RANGE, only=only) >= len(linears[::2])
    if static != "none":
        static_int8(model, SAFE_RANGE, ranges)
    dynamic_int8(model, SAFE_RANGE)
    embedding_int8(model, min_rows=8)

    after = run(model, ids=IDS)
    assert error(after, before) <= CAP
    assert [value.name for value in model.graph.outputs] == output_names
    assert counts(model)["MatMulInteger"] + counts(model)["QuantizeLinear"] > 0 or not linears
