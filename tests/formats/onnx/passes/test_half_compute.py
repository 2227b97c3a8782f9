"""Graphs computed in float16, rule by rule."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from foreign_graphs import answers, branches, loaded, node, proto, small_cnn, voice_feeds
from onnx.reference import ReferenceEvaluator
from onnx_graphs import error, normal

from edgeq.formats.onnx.passes.half_compute import half_compute
from edgeq.formats.onnx.prepare import prepare


def halved(model: onnx.ModelProto, keep: str | None = None) -> tuple[onnx.ModelProto, int, list[str]]:
    graph = loaded(model)
    prepare(graph)
    found = half_compute(graph, keep=lambda name: name == keep)
    return ir.to_proto(graph), found.nodes, found.kept


def casts(model: onnx.ModelProto) -> list[int]:
    return [one.attribute[0].i for one in model.graph.node if one.op_type == "Cast"]


def test_casts_stand_at_the_ends() -> None:
    weight = normal(1, 8, 8)
    model = proto(
        [node("MatMul", ["x", "w"], ["m"]), node("Relu", ["m"], ["y"])],
        {"x": ["n", 8]},
        {"y": 2},
        {"w": weight},
    )
    made, count, kept = halved(model)
    assert (count, kept) == (2, [])
    assert casts(made) == [onnx.TensorProto.FLOAT16, onnx.TensorProto.FLOAT]
    assert [t.data_type for t in made.graph.initializer] == [onnx.TensorProto.FLOAT16]
    x = normal(2, 3, 8)
    assert error(answers(made, x=x), answers(model, x=x)) <= 2e-3


def test_nodes_at_risk_stay_in_float32() -> None:
    """A norm of numbers near 400, whose squares float16 does not hold, with an epsilon that it does not hold either."""
    nodes = [
        node("Relu", ["x"], ["r"]),
        node("Pow", ["r", "two"], ["p"], name="square"),
        node("ReduceMean", ["p"], ["m"], axes=[1], name="mean"),
        node("Add", ["m", "epsilon"], ["e"], name="add"),
        node("Sqrt", ["e"], ["q"], name="root"),
        node("Div", ["r", "q"], ["y"], name="scale"),
    ]
    constants = {"two": np.float32(2), "epsilon": np.float32(1e-12)}
    model = proto(nodes, {"x": ["n", 8]}, {"y": 2}, constants)
    made, count, kept = halved(model)
    assert (count, kept) == (2, ["square", "mean", "add", "root"])
    x = normal(2, 3, 8) + np.float32(400)
    expected = answers(model, x=x)
    assert error(answers(made, x=x), expected) <= 2e-3
    assert (
        error(ReferenceEvaluator(made).run(None, {"x": x}), expected) <= 2e-3
    )  # which rounds after every node
    assert halved(model, keep="scale")[1:] == (1, ["square", "mean", "add", "root", "scale"])


def test_what_stands_for_infinity_is_clamped() -> None:
    """A mask's −3.4e38 becomes −60000; a node that reads 1e6 stays in float32."""
    lowest = np.float32(np.finfo(np.float32).min)
    nodes = [
        node("Where", ["c", "x", "low"], ["s"]),
        node("Softmax", ["s"], ["p"], axis=-1),
        node("Mul", ["p", "large"], ["y"], name="large"),
    ]
    constants = {"c": np.arange(8) < 5, "low": lowest, "large": np.float32(1e6)}
    model = proto(nodes, {"x": ["n", 8]}, {"y": 2}, constants)
    made, count, kept = halved(model)
    assert (count, kept) == (1, ["Softmax_p", "large"])
    x = normal(2, 3, 8)
    (after,) = answers(made, x=x)
    assert not after[:, 5:].any()
    assert error([after], answers(model, x=x)) <= 2e-3


@pytest.mark.parametrize("kind", ["cnn", "voice"])
def test_foreign_graphs(kind: str) -> None:
    """Convolutions; an If whose branches read what is float16 outside."""
    model, feeds = (
        (small_cnn(), {"x": normal(1, 2, 3, 12, 12)})
        if kind == "cnn"
        else (branches(), voice_feeds(1, 16000))
    )
    made, count, _ = halved(model)
    assert count >= 4
    assert {value.type.tensor_type.elem_type for value in made.graph.output} == {onnx.TensorProto.FLOAT}
    assert error(answers(made, **feeds), answers(model, **feeds)) <= 5e-3
