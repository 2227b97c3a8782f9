"""Graphs of older opsets answer in a newer one as they did."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

from edgeq.formats.errors import EdgeqError
from edgeq.formats.onnx.passes.raise_opset import raise_opset

X = np.random.default_rng(3).standard_normal((1, 4, 6, 6)).astype(np.float32)
GRID = np.random.default_rng(4).uniform(-1, 1, (1, 5, 5, 2)).astype(np.float32)


def _graph(opset: int, *nodes: onnx.NodeProto) -> onnx.ModelProto:
    """x and a grid of places in it, through nodes to ``y``."""
    inputs = [
        helper.make_tensor_value_info(n, TensorProto.FLOAT, a.shape) for n, a in (("x", X), ("grid", GRID))
    ]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    graph = helper.make_graph(list(nodes), "g", inputs, outputs)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def _run(model: onnx.ModelProto) -> np.ndarray:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    known = {value.name for value in session.get_inputs()}
    return session.run(["y"], {k: v for k, v in {"x": X, "grid": GRID}.items() if k in known})[0]


def _node(op_type: str, inputs: str, outputs: str, **attributes: object) -> onnx.NodeProto:
    return helper.make_node(op_type, inputs.split(), outputs.split(), **attributes)


NODES = {
    "mean of axes": (13, [_node("ReduceMean", "x", "y", axes=[-1, 1])]),
    "max of all, kept": (13, [_node("ReduceMax", "x", "y")]),
    "norm, not kept": (17, [_node("ReduceL2", "x", "y", axes=[2], keepdims=0)]),
    "equal parts": (17, [_node("Split", "x", "a b", axis=1), _node("Sub", "a b", "y")]),
    "sizes as an attribute": (11, [_node("Split", "x", "a b", axis=1, split=[1, 3]), _node("Add", "a b", "y")]),
    "axes as an attribute": (12, [_node("Unsqueeze", "x", "a", axes=[0]), _node("Squeeze", "a", "y", axes=[0])]),
    "softmax of all behind an axis": (11, [_node("Softmax", "x", "y", axis=2)]),
    "dropout": (11, [_node("Dropout", "x", "y", ratio=0.5)]),
    "bilinear": (16, [_node("GridSample", "x grid", "y", mode="bilinear")]),
    "bicubic": (16, [_node("GridSample", "x grid", "y", mode="bicubic")]),
    "nearest": (16, [_node("GridSample", "x grid", "y", mode="nearest")]),
}  # fmt: skip


@pytest.mark.parametrize("name", NODES)
@pytest.mark.parametrize("opset", [13, 18, 21])
def test_the_answer_stays(name: str, opset: int) -> None:
    old, nodes = NODES[name]
    before = _graph(old, *nodes)
    model = ir.from_proto(before)
    assert raise_opset(model, opset) == (old < opset)
    after = ir.to_proto(model)
    assert model.opset_imports[""] == max(old, opset)
    np.testing.assert_allclose(_run(after), _run(before), rtol=1e-6, atol=1e-6)


def test_an_operator_that_was_defined_anew_is_an_error() -> None:
    model = ir.from_proto(_graph(18, _node("GroupNormalization", "x grid grid", "y", num_groups=2)))
    with pytest.raises(EdgeqError, match="opset 18 and GroupNormalization, which 21 defines otherwise"):
        raise_opset(model, 21)
    assert not raise_opset(model, 18)
