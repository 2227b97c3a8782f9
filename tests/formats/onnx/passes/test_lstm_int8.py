"""LSTMs with int8 weights: near the float answer, and what ONNX Runtime computes is what the plain twin does."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from foreign_graphs import answers, loaded, node, proto
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator
from onnx_graphs import counts, error, normal
from plain_lstm import DynamicQuantizeLSTM

from edgeq.formats.onnx.edit import ERROR
from edgeq.formats.onnx.int8 import FULL_RANGE, SAFE_RANGE
from edgeq.formats.onnx.passes.lstm_int8 import lstm_int8
from edgeq.formats.onnx.prepare import prepare

FEEDS = {"x": normal(1, 7, 3, 12)}


def graph(directions: int = 1, inputs: str = "w r b", **attributes: Any) -> onnx.ModelProto:
    constants: dict[str, NDArray[Any]] = {
        "w": normal(2, directions, 64, 12, size=0.3),
        "r": normal(3, directions, 64, 16, size=0.3),
        "b": normal(4, directions, 128, size=0.2),
        "h": normal(5, directions, 3, 16, size=0.3),
        "c": normal(6, directions, 3, 16, size=0.3),
        "peep": normal(7, directions, 48, size=0.2),
    }
    names = ["" if name == "-" else name for name in inputs.split()]
    made = [node("LSTM", ["x", *names], ["y", "y_h", "y_c"], hidden_size=16, name="lstm", **attributes)]
    used = {name: constants[name] for name in names if name}
    return proto(made, {"x": ["t", 3, 12]}, {"y": 4, "y_h": 3, "y_c": 3}, used)


@pytest.mark.parametrize(
    ("directions", "inputs", "attributes"),
    [
        (1, "w r", {}),
        (1, "w r b - h c", {}),
        (1, "w r b - h c peep", {"clip": 3.0}),
        (2, "w r b", {"direction": "bidirectional"}),
        (1, "w r b", {"direction": "reverse", "activations": ["Sigmoid", "Tanh", "Relu"]}),
    ],
)
def test_the_answer_stays(directions: int, inputs: str, attributes: dict[str, Any]) -> None:
    source = graph(directions, inputs, **attributes)
    model = loaded(source)
    prepare(model)
    assert lstm_int8(model, SAFE_RANGE) == 1
    assert counts(model) == {"DynamicQuantizeLSTM": 1}
    assert error(answers(model, **FEEDS), answers(source, **FEEDS)) <= 0.02
    codes = model.graph.initializers["w_int8"]
    assert 0 < codes.meta[ERROR] < 0.02
    assert codes.const_value is not None
    assert codes.const_value.numpy().shape == (directions, 12, 64)


def test_the_runtime_agrees_with_the_plain_twin() -> None:
    model = loaded(graph(1, "w r b - h c"))
    lstm_int8(model, FULL_RANGE // 2)
    made = ir.to_proto(model)
    plain = ReferenceEvaluator(made, new_ops=[DynamicQuantizeLSTM]).run(None, FEEDS)
    assert error(answers(model, **FEEDS), plain) <= 1e-4


def test_neighbours_stay_within_the_limit() -> None:
    model = loaded(graph())
    lstm_int8(model, SAFE_RANGE)
    tensor = model.graph.initializers["r_int8"].const_value
    assert tensor is not None
    pairs = tensor.numpy()[0].reshape(-1, 2, 64).astype(int).sum(axis=1)
    assert np.abs(pairs).max() <= 2 * SAFE_RANGE


@pytest.mark.parametrize("change", ["layout", "weights"])
def test_what_is_left(change: str) -> None:
    source = graph()
    if change == "layout":
        source.graph.node[0].attribute.append(onnx.helper.make_attribute("layout", 1))
    else:
        (tensor,) = [t for t in source.graph.initializer if t.name == "w"]
        source.graph.initializer.remove(tensor)
        source.graph.input.append(onnx.helper.make_tensor_value_info("w", 1, [1, 64, 12]))
    model = loaded(source)
    assert lstm_int8(model, SAFE_RANGE) == 0
    assert lstm_int8(loaded(graph()), SAFE_RANGE, only=["another"]) == 0
