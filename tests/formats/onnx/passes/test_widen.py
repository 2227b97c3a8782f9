"""Graphs of other floats in float32: the answer stays, edges keep their types, and such a file is quantized."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from foreign_graphs import answers, loaded, node, proto, saved
from loop_graphs import body
from onnx_graphs import normal

from edgeq.formats.onnx.passes.widen import widen
from edgeq.formats.onnx.prepare import prepare
from edgeq.onnx import Request, quantize, session

KINDS = {"float16": onnx.TensorProto.FLOAT16, "double": onnx.TensorProto.DOUBLE}
DTYPES = {"float16": np.float16, "double": np.float64}


def graph(kind: str, onto: str = "") -> onnx.ModelProto:
    """A layer, an If with one in a branch, a ConstantOfShape and a Cast; an output that is an input, too."""
    dtype, code = DTYPES[kind], KINDS[kind]
    constants = {
        "w": normal(1, 64, 64, size=0.15).astype(dtype),
        "v": normal(2, 64, 32, size=0.15).astype(dtype),
        "shape": np.array([32]),
        "nought": np.array(0, dtype),
    }
    one = body("one", [node("MatMul", ["r", "w"], ["p"])], {}, {"p": (code, ["n", 64])})
    other = body("other", [node("Neg", ["r"], ["q"])], {}, {"q": (code, ["n", 64])})
    half = onnx.numpy_helper.from_array(np.array([0.5], dtype))
    nodes = [
        node("MatMul", ["x", "w"], ["a"]),
        node("Relu", ["a"], ["r"]),
        node("ReduceSum", ["x"], ["sum"], keepdims=0),
        node("Greater", ["sum", "nought"], ["positive"]),
        node("If", ["positive"], ["b"], then_branch=one, else_branch=other),
        node("Cast", ["b"], ["c"], to=code),
        node("MatMul", ["c", "v"], ["m"]),
        node("ConstantOfShape", ["shape"], ["halves"], value=half),
        node("Add", ["m", "halves"], ["y"]),
    ]
    return proto(nodes, {"x": ["n", 64]}, {"y": 2}, constants, types={"x": code, "y": code})


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sign", [1, -1])
def test_the_answer_stays(kind: str, sign: int) -> None:
    source = graph(kind)
    x = (sign * np.abs(normal(5, 4, 64))).astype(DTYPES[kind])
    model = loaded(source)
    assert widen(model) == {kind}
    (after,), (before,) = answers(model, x=x), answers(source, x=x)
    assert after.dtype == before.dtype == DTYPES[kind]
    np.testing.assert_allclose(after, before, atol=2e-2 if kind == "float16" else 1e-5)
    assert {v.dtype for v in model.graph.initializers.values()} == {ir.DataType.FLOAT, ir.DataType.INT64}


def test_an_input_that_is_an_output() -> None:
    source = graph("float16")
    source.graph.output.append(source.graph.input[0])
    model = loaded(source)
    widen(model)
    x = normal(5, 4, 64).astype(np.float16)
    np.testing.assert_array_equal(answers(model, x=x)[1], x)


def test_weights_that_are_only_stored_so() -> None:
    constants = {"w": normal(1, 64, 64).astype(np.float16)}
    nodes = [node("Cast", ["w"], ["f"], to=onnx.TensorProto.FLOAT), node("MatMul", ["x", "f"], ["y"])]
    model = loaded(proto(nodes, {"x": ["n", 64]}, {"y": 2}, constants))
    assert widen(model) == set()
    prepare(model)
    assert [one.op_type for one in model.graph] == ["MatMul"]


def test_such_a_file_is_quantized(tmp_path: Path) -> None:
    source = saved(graph("float16"), tmp_path / "m.onnx")
    data = [{"x": normal(i, 4, 64).astype(np.float16)} for i in range(10)]
    record = quantize(Request(source, tmp_path / "q.onnx", "int8", data, allow_slower=True))
    assert "computed in float32, was float16" in record["notes"]
    assert record["proof"]["closeness"] > 0.999
    (answer,) = session(record["files"][0]).run(None, data[0])
    assert answer.dtype == np.float16
