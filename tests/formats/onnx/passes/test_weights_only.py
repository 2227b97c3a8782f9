"""Weights stored small, arithmetic in float: int8 kernels, 16-bit tensors; and values of branches as outputs."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from foreign_graphs import answers, branches, loaded, node, proto, voice_feeds
from onnx_graphs import counts, error, normal

from edgeq.formats.onnx.passes.conv_weights import conv_weights
from edgeq.formats.onnx.passes.half_weights import Kind, half_weights
from edgeq.formats.onnx.passes.recurrent_weights import recurrent_weights
from edgeq.formats.onnx.prepare import prepare
from edgeq.formats.onnx.watch import watched_copy

X = normal(9, 2, 8, 6, 6)


@pytest.mark.parametrize("op", ["Conv", "ConvTranspose"])
def test_kernels_in_int8(op: str) -> None:
    constants = {"w": normal(1, 8, 16, 3, 3) if op == "ConvTranspose" else normal(1, 16, 8, 3, 3)}
    nodes = [node(op, ["x", "w"], ["a"]), node(op, ["x", "w"], ["b"]), node("Sub", ["a", "b"], ["y"])]
    model = loaded(proto(nodes, {"x": ["n", 8, 6, 6]}, {"y": 4, "a": 4}, constants))
    before = answers(model, x=X)[1]
    assert conv_weights(model) == 2
    after = answers(model, x=X)
    assert not after[0].any()  # the two share one kernel
    assert error([after[1]], [before]) <= 0.01
    assert list(model.graph.initializers) == ["w_int8", "w_scale", "w_zero_point"]


def test_small_kernels_and_others_stay() -> None:
    constants = {"w": normal(1, 4, 8, 3, 3), "v": normal(2, 16, 8, 3, 3)}
    nodes = [node("Conv", ["x", "w"], ["a"], name="a"), node("Conv", ["x", "v"], ["b"], name="b")]
    model = loaded(proto(nodes, {"x": ["n", 8, 6, 6]}, {"a": 4, "b": 4}, constants))
    assert conv_weights(model, only=["a"]) == 0
    assert "DequantizeLinear" not in counts(model)


RECURRENT: list[tuple[str, int, dict[str, Any]]] = [
    ("GRU", 3, {"direction": "bidirectional", "linear_before_reset": 1}),
    ("GRU", 3, {}),
    ("RNN", 1, {"activations": ["Relu"]}),
    ("LSTM", 4, {"layout": 1}),  # ONNX Runtime refuses it: not run
]


@pytest.mark.parametrize(("op", "gates", "attributes"), RECURRENT)
def test_recurrent_layers_in_int8(op: str, gates: int, attributes: dict[str, Any]) -> None:
    directions = 2 if "direction" in attributes else 1
    constants = {
        "w": normal(1, directions, gates * 48, 24, size=0.2),
        "r": normal(2, directions, gates * 48, 48, size=0.1),
    }
    nodes = [node(op, ["x", "w", "r"], ["y", "y_h"], hidden_size=48, name="r", **attributes)]
    model = loaded(proto(nodes, {"x": ["t", 2, 24]}, {"y": 4, "y_h": 3}, constants))
    runs = "layout" not in attributes
    before = answers(model, x=normal(3, 5, 2, 24)) if runs else []
    assert recurrent_weights(model, only=["other"]) == 0
    assert recurrent_weights(model) == 1
    assert counts(model) == {"DequantizeLinear": 2, op: 1}
    codes = model.graph.initializers["r_int8"].const_value
    assert codes is not None
    assert (codes.dtype, codes.nbytes) == (ir.DataType.INT8, constants["r"].size)
    assert not runs or error(answers(model, x=normal(3, 5, 2, 24)), before) <= 0.02


def test_what_is_no_weight_of_a_recurrent_layer() -> None:
    constants = {"w": normal(1, 1, 24, 8), "r": normal(2, 1, 24, 8), "s": normal(3, 1, 96, 24)}
    nodes = [
        node("GRU", ["x", "w", "r"], ["a", ""], hidden_size=8),  # small
        node("LSTM", ["x", "v", "s"], ["b", "", ""], hidden_size=24),  # has an operator of its own
    ]
    constants["v"] = normal(4, 1, 96, 8)
    model = loaded(proto(nodes, {"x": ["t", 2, 8]}, {"a": 4, "b": 4}, constants))
    assert recurrent_weights(model) == 0


@pytest.mark.parametrize(("kind", "cap"), [("float16", 1e-3), ("bfloat16", 1e-2)])
def test_halves(kind: Kind, cap: float) -> None:
    constants = {"w": normal(1, 16, 8, 3, 3), "few": normal(2, 16)}
    nodes = [node("Conv", ["x", "w", "few"], ["y"])]
    model = loaded(proto(nodes, {"x": ["n", 8, 6, 6]}, {"y": 4}, constants))
    before = answers(model, x=X)
    assert half_weights(model, kind) == (1, [])
    assert error(answers(model, x=X), before) <= cap
    stored = model.graph.initializers[f"w_{kind}"].const_value
    assert stored is not None
    assert stored.nbytes == 2 * 16 * 8 * 9
    assert model.graph.initializers["few"].dtype == ir.DataType.FLOAT


def test_what_float16_cannot_hold_stays() -> None:
    constants = {"big": normal(1, 64), "tiny": normal(2, 64), "fine": normal(3, 64), "asked": normal(4, 64)}
    constants["big"][5] = 1e5
    constants["tiny"] *= np.float32(1e-7)
    nodes = [node("Sum", ["x", *constants], ["y"])]
    model = loaded(proto(nodes, {"x": ["n", 64]}, {"y": 2}, constants))
    assert half_weights(model, "float16", lambda name: name == "asked") == (1, ["big", "tiny", "asked"])
    other = loaded(proto(nodes, {"x": ["n", 64]}, {"y": 2}, constants))
    assert half_weights(other, "bfloat16") == (4, [])


@pytest.mark.parametrize("rate", [8000, 16000])
def test_values_of_branches_as_outputs(rate: int) -> None:
    model = loaded(branches())
    prepare(model)
    names = ["c", "c_1", "x", "h"]
    copy, outputs = watched_copy(model, names)
    assert len(model.graph.outputs) == 3
    feeds = voice_feeds(1, rate)
    del outputs["x"]  # an input that is an output, too
    copy.graph.outputs[:] = [value for value in copy.graph.outputs if value.name != "x"]
    found = dict(zip([value.name for value in copy.graph.outputs], answers_of(copy, feeds), strict=True))
    shapes = sorted((found[output].shape for name, output in outputs.items() if name != "h"), key=len)
    assert shapes == [(0,), (1, 16, 8 if rate == 16000 else 16)]
    assert found[outputs["h"]].ndim == 3


def answers_of(model: ir.Model, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    """Without the checker, which wants a shape for every output."""
    from onnx_graphs import run_bytes

    return run_bytes(ir.to_proto(model).SerializeToString(), **feeds)  # type: ignore[return-value]
