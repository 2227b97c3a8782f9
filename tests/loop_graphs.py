"""Graphs with layers inside of Loop and Scan, two levels deep too, as exporters and hands write them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from foreign_graphs import node, proto
from numpy.typing import NDArray
from onnx import TensorProto, helper
from onnx_graphs import normal

FLOAT, INT64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL
HIDDEN, WIDTH = 16, 24
WEIGHTS: dict[str, NDArray[Any]] = {
    "wx": normal(1, WIDTH, HIDDEN, size=0.12),
    "wh": normal(2, HIDDEN, HIDDEN, size=0.15),
    "wo": normal(3, HIDDEN, WIDTH, size=0.15),
    "b": normal(4, HIDDEN, size=0.1),
    "steps": np.array(6, np.int64),
    "yes": np.array(True),
    "two": np.array(2, np.int64),
    "zero": np.array(0, np.int64),
}


def body(
    name: str,
    nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, tuple[int, Sequence[int | str]]],
    outputs: Mapping[str, tuple[int, Sequence[int | str]]],
) -> onnx.GraphProto:
    ins, outs = (
        [helper.make_tensor_value_info(one, kind, shape) for one, (kind, shape) in values.items()]
        for values in (inputs, outputs)
    )
    return helper.make_graph(list(nodes), name, ins, outs)


def cell(x: str, h: str, new: str, end: str = "") -> list[onnx.NodeProto]:
    """h' = tanh(x · wx + h · wh + b)."""
    return [
        node("MatMul", [x, "wx"], [f"a{end}"]),
        node("MatMul", [h, "wh"], [f"c{end}"]),
        node("Add", [f"a{end}", f"c{end}"], [f"s{end}"]),
        node("Add", [f"s{end}", "b"], [f"t{end}"]),
        node("Tanh", [f"t{end}"], [new]),
    ]


H, X = (FLOAT, ["n", HIDDEN]), (FLOAT, ["n", WIDTH])
ROUND = {"i": (INT64, []), "go": (BOOL, [])}


def loop() -> onnx.ModelProto:
    """A decoder's steps: the answer of one is what the next reads; its answers are stacked."""
    step = [
        *cell("x_in", "h_in", "h_out"),
        node("MatMul", ["h_out", "wo"], ["y"]),
        node("Identity", ["go"], ["go_out"]),
        node("Tanh", ["y"], ["x_out"]),
    ]
    inner = body(
        "step",
        step,
        ROUND | {"x_in": X, "h_in": H},
        {"go_out": (BOOL, []), "x_out": X, "h_out": H, "y": X},
    )
    nodes = [node("Loop", ["steps", "yes", "x", "h"], ["x_end", "h_end", "ys"], body=inner)]
    return proto(nodes, {"x": ["n", WIDTH], "h": ["n", HIDDEN]}, {"x_end": 2, "h_end": 2, "ys": 3}, WEIGHTS)


def growing_loop() -> onnx.ModelProto:
    """What is read grows by a row in each round, as a cache does."""
    step = [
        node("MatMul", ["rows", "wh"], ["m"]),
        node("ReduceMean", ["m"], ["mean"], axes=[0], keepdims=1),
        node("Tanh", ["mean"], ["new"]),
        node("Concat", ["rows", "new"], ["rows_out"], axis=0),
        node("Identity", ["go"], ["go_out"]),
    ]
    rows = (FLOAT, ["r", HIDDEN])
    inner = body("step", step, ROUND | {"rows": rows}, {"go_out": (BOOL, []), "rows_out": rows})
    nodes = [node("Loop", ["steps", "yes", "h"], ["y"], body=inner)]
    return proto(nodes, {"h": ["n", HIDDEN]}, {"y": 2}, WEIGHTS)


def scan() -> onnx.ModelProto:
    """A recurrent cell over the first axis."""
    step = [*cell("x_in", "h_in", "h_out"), node("MatMul", ["h_out", "wo"], ["y"])]
    inner = body("step", step, {"h_in": H, "x_in": X}, {"h_out": H, "y": X})
    nodes = [node("Scan", ["h", "xs"], ["h_end", "ys"], body=inner, num_scan_inputs=1)]
    return proto(nodes, {"h": ["n", HIDDEN], "xs": ["t", "n", WIDTH]}, {"h_end": 2, "ys": 3}, WEIGHTS)


def deep(inside: str) -> onnx.ModelProto:
    """A loop around a loop, a scan or a branch."""
    inner_round = {"j": (INT64, []), "on": (BOOL, [])}
    if inside == "Loop":
        step = [*cell("x_in", "h2", "h3"), node("Identity", ["on"], ["on_out"])]
        deepest = body("inner", step, inner_round | {"h2": H}, {"on_out": (BOOL, []), "h3": H})
        made = [node("Loop", ["two", "yes", "h_in"], ["h_out"], body=deepest)]
    elif inside == "Scan":
        deepest = body("inner", cell("x2", "h2", "h3"), {"h2": H, "x2": X}, {"h3": H})
        made = [node("Scan", ["h_in", "xs"], ["h_out"], body=deepest, num_scan_inputs=1)]
    else:
        one = body("one", cell("x_in", "h_in", "h3"), {}, {"h3": H})
        other = body(
            "other", [*cell("x_in", "h_in", "h4", "2")[1:2], node("Tanh", ["c2"], ["h4"])], {}, {"h4": H}
        )
        made = [
            node("Equal", ["i", "zero"], ["first"]),
            node("If", ["first"], ["h_out"], then_branch=one, else_branch=other),
        ]
    step = [
        node("Identity", ["go"], ["go_out"]),
        *made,
        node("MatMul", ["h_out", "wo"], ["y"]),
        node("Tanh", ["y"], ["x_out"]),
    ]
    inner = body(
        "outer", step, ROUND | {"x_in": X, "h_in": H}, {"go_out": (BOOL, []), "x_out": X, "h_out": H}
    )
    nodes = [node("Loop", ["steps", "yes", "x", "h"], ["x_end", "h_end"], body=inner)]
    inputs: dict[str, Sequence[int | str]] = {"x": ["n", WIDTH], "h": ["n", HIDDEN]}
    if inside == "Scan":
        inputs["xs"] = ["t", "n", WIDTH]
    return proto(nodes, inputs, {"x_end": 2, "h_end": 2}, WEIGHTS)


def loop_in_branch() -> onnx.ModelProto:
    """A branch with a loop and one with a layer."""
    step = [*cell("x", "h_in", "h_out"), node("Identity", ["go"], ["go_out"])]
    inner = body("step", step, ROUND | {"h_in": H}, {"go_out": (BOOL, []), "h_out": H})
    many = [node("Loop", ["steps", "yes", "h"], ["h_many"], body=inner)]
    one = [node("MatMul", ["h", "wh"], ["m"]), node("Tanh", ["m"], ["h_one"])]
    nodes = [
        node("ReduceSum", ["x"], ["sum"], keepdims=0),
        node("Greater", ["sum", "nought"], ["positive"]),
        node(
            "If",
            ["positive"],
            ["end"],
            then_branch=body("many", many, {}, {"h_many": H}),
            else_branch=body("one", one, {}, {"h_one": H}),
        ),
        node("MatMul", ["end", "wo"], ["y"]),
    ]
    constants = WEIGHTS | {"nought": np.array(0, np.float32)}
    return proto(nodes, {"x": ["n", WIDTH], "h": ["n", HIDDEN]}, {"y": 2}, constants)


def branch_in_scan() -> onnx.ModelProto:
    """Odd rounds read the state, even ones the input."""
    one = body("one", [node("MatMul", ["x_in", "wx"], ["p"])], {}, {"p": H})
    other = body("other", [node("MatMul", ["h_in", "wh"], ["q"])], {}, {"q": H})
    step = [
        node("ReduceSum", ["x_in"], ["sum"], keepdims=0),
        node("Greater", ["sum", "nought"], ["positive"]),
        node("If", ["positive"], ["m"], then_branch=one, else_branch=other),
        node("Tanh", ["m"], ["h_out"]),
        node("MatMul", ["h_out", "wo"], ["y"]),
    ]
    inner = body("step", step, {"h_in": H, "x_in": X}, {"h_out": H, "y": X})
    nodes = [node("Scan", ["h", "xs"], ["h_end", "ys"], body=inner, num_scan_inputs=1)]
    constants = WEIGHTS | {"nought": np.array(0, np.float32)}
    return proto(nodes, {"h": ["n", HIDDEN], "xs": ["t", "n", WIDTH]}, {"h_end": 2, "ys": 3}, constants)


def convolution_in_scan() -> onnx.ModelProto:
    """Pictures one by one, with a sum that goes on."""
    picture = FLOAT, ["n", 3, 6, 6]
    step = [
        node("Add", ["before", "x_in"], ["s"]),
        node("Conv", ["s", "k"], ["c"], pads=[1] * 4),
        node("Tanh", ["c"], ["after"]),
        node("Identity", ["c"], ["y"]),
    ]
    inner = body("step", step, {"before": picture, "x_in": picture}, {"after": picture, "y": picture})
    nodes = [node("Scan", ["start", "xs"], ["end", "ys"], body=inner, num_scan_inputs=1)]
    inputs: dict[str, Sequence[int | str]] = {"start": ["n", 3, 6, 6], "xs": ["t", "n", 3, 6, 6]}
    return proto(nodes, inputs, {"end": 4, "ys": 5}, {"k": normal(9, 3, 3, 3, 3, size=0.15)})
