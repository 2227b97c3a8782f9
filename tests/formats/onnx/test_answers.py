"""What a graph is judged by: what its outputs are chosen or joined from."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from foreign_graphs import loaded, node, proto
from numpy.typing import NDArray
from onnx import TensorProto
from onnx_graphs import normal

from edgeq.formats.onnx.answers import Answers, find_answers
from edgeq.formats.onnx.prepare import prepare


def found(model: onnx.ModelProto) -> Answers:
    made = loaded(model)
    prepare(made)
    return find_answers(made)


def detector(raw: bool) -> onnx.ModelProto:
    """Boxes in pixels and scores up to 1: joined, or the best of them picked."""
    constants: dict[str, NDArray[Any]] = {
        "wb": normal(1, 4, 3, 4, 4),
        "ws": normal(2, 2, 3, 4, 4, size=0.3),
        "pixels": np.float32(64),
        "k": np.array([3]),
    }
    nodes = [
        node("Conv", ["x", "wb"], ["b0"]),
        node("Mul", ["b0", "pixels"], ["b1"]),
        node("Relu", ["b1"], ["b2"]),
        node("Conv", ["x", "ws"], ["s0"]),
        node("Sigmoid", ["s0"], ["s1"]),
    ]
    if raw:
        nodes += [node("Concat", ["b2", "s1"], ["j"], axis=1), node("Transpose", ["j"], ["y"])]
        return proto(nodes, {"x": ["n", 3, "h", "w"]}, {"y": 4}, constants)
    nodes += [node("Flatten", ["s1"], ["flat"]), node("TopK", ["flat", "k"], ["best", "at"])]
    types = {"at": TensorProto.INT64}
    return proto(nodes, {"x": ["n", 3, "h", "w"]}, {"best": 2, "at": 2, "b2": 4}, constants, types=types)


def test_parts_of_what_is_joined() -> None:
    assert found(detector(raw=True)) == Answers(("b2", "s1"), frozenset({"y"}))


def test_what_is_chosen_by() -> None:
    assert found(detector(raw=False)) == Answers(("flat",), frozenset({"best", "at"}))


def test_a_choice_inside_of_a_network_does_not_count() -> None:
    constants = {"w": normal(1, 8, 8), "k": np.array([2])}
    nodes = [
        node("MatMul", ["x", "w"], ["h"]),
        node("TopK", ["h", "k"], ["v", "i"]),
        node("Pad", ["v", "wide"], ["p"]),
        node("MatMul", ["p", "w"], ["y"]),
    ]
    model = proto(nodes, {"x": ["n", 8]}, {"y": 2}, constants | {"wide": np.array([0, 0, 0, 6])})
    assert found(model) == Answers()


def test_plain_outputs() -> None:
    model = proto([node("MatMul", ["x", "w"], ["y"])], {"x": ["n", 8]}, {"y": 2}, {"w": normal(1, 8, 8)})
    assert found(model) == Answers()
