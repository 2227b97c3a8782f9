"""Weights with a scale for each channel or for each tensor: what is stored, and that the interpreter agrees."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from foreign_graphs import branches, node, proto, saved, small_cnn, voice_feeds
from onnx.reference import ReferenceEvaluator
from onnx_graphs import error, normal
from plain_lstm import DynamicQuantizeLSTM

import edgeq.onnx
from edgeq.calibration.inputs import Arrays
from edgeq.errors import UsageError
from edgeq.onnx import Request, quantize


def encoder(opset: int) -> onnx.ModelProto:
    """A table, a Gemm, a MatMul of a transposed matrix, a GRU and a ConvTranspose."""
    constants = {
        "table": normal(1, 1100, 32),
        "w": normal(2, 40, 32, size=0.2),
        "b": normal(3, 40),
        "v": normal(4, 48, 40, size=0.2),
        "gw": normal(5, 1, 48, 48, size=0.2),
        "gr": normal(6, 1, 48, 16, size=0.2),
        "k": normal(7, 48, 24, 3, size=0.1),
        "flat": np.array([-1, 32]),
        "back": np.array([-1, 1, 40]),
    }
    nodes = [
        node("Gather", ["table", "ids"], ["e"]),
        node("Reshape", ["e", "flat"], ["f"]),
        node("Gemm", ["f", "w", "b"], ["g"], transB=1, name="gemm"),
        node("Reshape", ["g", "back"], ["t"]),
        node("Transpose", ["v"], ["vt"], perm=[1, 0]),
        node("MatMul", ["t", "vt"], ["m"], name="product"),
        node("GRU", ["m", "gw", "gr"], ["", "h"], hidden_size=16),
        node("Transpose", ["m"], ["mt"], perm=[1, 2, 0]),
        node("ConvTranspose", ["mt", "k"], ["y"], pads=[1, 1]),
    ]
    types = {"ids": onnx.TensorProto.INT64}
    return proto(nodes, {"ids": [1, "n"]}, {"y": 3, "h": 3}, constants, opset, types)


SOURCES: dict[str, tuple[Callable[[int], onnx.ModelProto], list[Arrays]]] = {
    "cnn": (small_cnn, [{"x": normal(i, 2, 3, 12, 12)} for i in range(12)]),
    "voice": (branches, [voice_feeds(i, 16000 if i % 2 else 8000) for i in range(12)]),
    "encoder": (encoder, [{"ids": np.random.default_rng(i).integers(0, 1100, (1, 9))} for i in range(12)]),
}


def scale_shapes(path: str) -> dict[str, tuple[int, ...]]:
    """Of the constants' scales, by the name of the constant."""
    tensors = onnx.load(path).graph.initializer
    codes = {t.name.rsplit("_", 1)[0] for t in tensors if t.name.endswith(("_int8", "_uint8"))}
    return {name: tuple(t.dims) for t in tensors for name in codes if t.name == f"{name}_scale"}


@pytest.mark.parametrize(
    ("kind", "quant", "scheme"),
    [
        ("cnn", "int8", "u8s8"),
        ("cnn", "int8", "u8u8"),
        ("cnn", "int8-dynamic", None),
        ("voice", "int8", "s8s8"),
        ("encoder", "int8", "u8u8"),
        ("encoder", "int8-dynamic", None),
    ],
)
def test_one_scale_for_each_tensor(kind: str, quant: str, scheme: str | None, tmp_path: Path) -> None:
    make, data = SOURCES[kind]
    source = saved(make(21), tmp_path / "opset21.onnx")  # the interpreter has no older DequantizeLinear
    asked = Request(source, tmp_path, quant, data, scheme=scheme, granularity="tensor", proof=False)
    record = quantize(asked)
    path = record["files"][0]
    assert record["granularity"] == "tensor"
    shapes = scale_shapes(path)
    assert shapes
    assert set(shapes.values()) <= {(), (1,)}  # (1,): of an LSTM's one direction
    plain = ReferenceEvaluator(path, new_ops=[DynamicQuantizeLSTM])
    runtime, floats = edgeq.onnx.session(path), edgeq.onnx.session(source)
    answers = [runtime.run(None, feeds) for feeds in data[:4]]
    errors = [error(a, plain.run(None, feeds)) for a, feeds in zip(answers, data, strict=False)]
    assert min(errors) <= 1e-4
    assert max(errors) <= 0.01  # a number on the border of two codes may fall to the other
    assert max(error(a, floats.run(None, feeds)) for a, feeds in zip(answers, data, strict=False)) <= 0.06


def test_single_layers(tmp_path: Path) -> None:
    make, data = SOURCES["encoder"]
    source = saved(make(17), tmp_path / "m.onnx")
    options: dict[str, Any] = {"proof": False, "force": True}
    record = quantize(Request(source, tmp_path, "int8", data, node_types=["gemm=int8:tensor"], **options))
    assert (record["granularity"], record["node_types"]) == ("channel", {"gemm": "int8:tensor"})
    shapes = scale_shapes(record["files"][0])
    assert (shapes["w"], shapes["v"], shapes["table"]) == ((), (48,), (1100,))
    asked = ["product=dynamic:channel"]
    found = quantize(
        Request(source, tmp_path, "int8-dynamic", node_types=asked, granularity="tensor", **options)
    )
    shapes = scale_shapes(found["files"][0])
    assert (shapes["w"], shapes["v"], shapes["table"]) == ((), (48,), ())


@pytest.mark.parametrize("text", ["gemm=int8:row", "gemm=float:tensor"])
def test_what_shares_no_scale(text: str, tmp_path: Path) -> None:
    source = saved(encoder(17), tmp_path / "m.onnx")
    with pytest.raises(UsageError, match="behind a type of rounded weights there may be :tensor or :channel"):
        quantize(Request(source, tmp_path, "int8", SOURCES["encoder"][1], node_types=[text]))
