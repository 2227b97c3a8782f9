"""What is computed from constants becomes one, in subgraphs too; the answer stays."""

from __future__ import annotations

import numpy as np
import onnx
from foreign_graphs import answers, loaded, node, proto
from onnx import TensorProto, helper
from onnx_graphs import counts, error, normal

from edgeq.formats.onnx.passes.fold_constants import fold_constants
from edgeq.formats.onnx.prepare import prepare
from edgeq.formats.onnx.recurrent import find_lstms

X = normal(1, 5, 2, 8)


def cut_weights() -> onnx.ModelProto:
    """An LSTM in a branch, its weights cut out of PyTorch's and put in ONNX's order there."""
    tensors = {"w": normal(2, 64, 8, size=0.3), "r": normal(3, 64, 16, size=0.3)}
    nodes = []
    for name in tensors:
        parts = []
        for gate, start in enumerate((0, 48, 16, 32)):  # i, f, g, o to i, o, f, c
            limits = [node("Constant", [], [f"{name}{gate}{end}"], value_ints=[value])
                      for end, value in (("a", start), ("z", start + 16))]  # fmt: skip
            nodes += [*limits, node("Slice", [name, f"{name}{gate}a", f"{name}{gate}z"], [f"{name}{gate}"])]
            parts.append(f"{name}{gate}")
        nodes.append(node("Concat", parts, [f"{name}_all"], axis=0))
        nodes.append(node("Unsqueeze", [f"{name}_all", "zero"], [f"{name}_onnx"]))
    nodes.append(node("LSTM", ["x", "w_onnx", "r_onnx"], ["y_then"], hidden_size=16))
    out = helper.make_tensor_value_info("y_then", TensorProto.FLOAT, None)
    then = helper.make_graph(nodes, "then", [], [out])
    zeros = node("Expand", ["nothing", "shape"], ["y_else"])
    out = helper.make_tensor_value_info("y_else", TensorProto.FLOAT, None)
    other = helper.make_graph([zeros], "else", [], [out])
    constants = {
        **tensors,
        "zero": np.array([0]),
        "nothing": np.zeros(1, np.float32),
        "shape": np.array([5, 1, 2, 16]),
    }
    return proto(
        [node("If", ["flag"], ["y"], then_branch=then, else_branch=other)],
        {"x": [5, 2, 8], "flag": []},
        {"y": 4},
        constants,
        types={"flag": TensorProto.BOOL},
    )


def test_the_weights_of_an_lstm_in_a_branch() -> None:
    source = cut_weights()
    model = loaded(source)
    prepare(model)
    (lstm,) = find_lstms(model)
    assert lstm.weight.const_value is not None
    assert lstm.weight.const_value.shape == (1, 64, 8)
    for flag in (True, False):
        feeds = {"x": X, "flag": np.array(flag)}
        assert error(answers(model, **feeds), answers(source, **feeds)) <= 1e-6


def test_what_stays() -> None:
    constants = {"w": normal(1, 8, 8), "two": np.float32(2)}
    nodes = [
        node("Mul", ["w", "two"], ["scaled"]),
        node("Transpose", ["scaled"], ["turned"], perm=[1, 0]),
        node("MatMul", ["x", "turned"], ["y"]),
        node("Mul", ["two", "two"], ["four"]),  # an output
        node("Split", ["w"], ["a", "b"], num_outputs=2),
        node("Add", ["a", "b"], ["c"]),
        node("Add", ["y", "four"], ["z"]),
    ]
    source = proto(nodes, {"x": ["n", 8]}, {"z": 2, "four": 0, "c": 2}, constants, opset=18)
    model = loaded(source)
    assert fold_constants(model) == 2
    assert counts(model) == {"Transpose": 1, "MatMul": 1, "Mul": 1, "Add": 2}
    assert error(answers(model, x=X[0]), answers(source, x=X[0])) <= 1e-6
