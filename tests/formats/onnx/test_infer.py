"""Types and shapes of inner values: sequences stay sequences, and what cannot be inferred is no error."""

from __future__ import annotations

import onnx_ir as ir
from foreign_graphs import answers, loaded, node, proto
from onnx_graphs import error, normal

from edgeq.formats.onnx.infer import infer_shapes

X = normal(1, 3, 8)


def test_sequences() -> None:
    nodes = [
        node("MatMul", ["x", "w"], ["h"]),
        node("SplitToSequence", ["h"], ["parts"], axis=1, keepdims=1),
        node("ConcatFromSequence", ["parts"], ["y"], axis=1),
    ]
    source = proto(nodes, {"x": ["n", 8]}, {"y": 2}, {"w": normal(2, 8, 16)})
    model = loaded(source)
    infer_shapes(model)
    types = {value.name: value.type for node in model.graph for value in node.outputs}
    assert isinstance(types["parts"], ir.SequenceType)
    assert types["h"] == ir.TensorType(ir.DataType.FLOAT)
    assert model.graph[0].outputs[0].shape == ["n", 16]
    assert error(answers(model, x=X), answers(source, x=X)) == 0


def test_what_onnx_does_not_know() -> None:
    model = loaded(
        proto([node("Relu", ["x"], ["h"]), node("Neg", ["h"], ["y"])], {"x": ["n", 8]}, {"y": 2}, {})
    )
    model.graph[0].op_type, model.graph[0].domain = "Strange", "somebody"
    infer_shapes(model)
    assert model.graph[0].outputs[0].type is None
