"""Without a quant: int8 within 1 % of the float answers, chosen by measuring; odd graphs are taken and told of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from foreign_graphs import branches, loaded, node, proto, saved, small_cnn, voice_feeds
from onnx import helper
from onnx_graphs import error, normal

import edgeq.onnx
from edgeq.calibration.inputs import inputs_of
from edgeq.errors import FormatError, InputError
from edgeq.formats.onnx.read import read_model
from edgeq.onnx import Request, quantize
from edgeq.onnx.auto import candidates

VOICE = [voice_feeds(i, 16000 if i % 2 else 8000) for i in range(30)]


@pytest.mark.parametrize("data", [None, VOICE])
def test_a_voice_detector(data: Any, tmp_path: Path) -> None:
    source = saved(branches(), tmp_path / "voice.onnx")
    said: list[str] = []
    record = quantize(Request(source, tmp_path, calibration=data, allow_slower=True, warn=said.append))
    path = record["files"][0]
    assert Path(path).name == "voice_int8.onnx"
    assert record["quant"] == "int8-dynamic"
    assert record["gates"] == []
    runtime, expected = edgeq.onnx.session(path), edgeq.onnx.session(source)
    for feeds in VOICE[:6]:
        assert error(runtime.run(None, feeds), expected.run(None, feeds)) <= 0.015
    assert any(note.startswith("int8 was tried before: ") for note in said) == (data is not None)


def test_what_is_tried() -> None:
    request = Request(Path("m.onnx"), Path())
    assert [one.quant for one in candidates(request)] == ["int8-dynamic", "int8-dynamic"]
    asked = Request(Path("m.onnx"), Path(), calibration=[], min_cosine=0.98)
    tried = list(candidates(asked))
    assert [one.quant for one in tried] == ["int8", "int8-dynamic", "int8"]
    assert {one.min_cosine for one in tried} == {0.98}
    assert [one.most_exempted for one in tried] == [0.25, 0.25, 1.0]
    assert [one.quant for one in candidates(Request(Path(), Path(), proof=False))] == ["int8-dynamic"]


def test_sample_rates_are_found() -> None:
    (rate,) = [entry for entry in inputs_of(loaded(branches())) if entry.name == "sr"]
    assert rate.choices == (16000,)


def test_a_broken_weight_is_left_alone(tmp_path: Path) -> None:
    bad = normal(1, 16, 8)
    bad[3, 3] = np.nan
    nodes = [node("MatMul", ["x", "bad"], ["a"], name="broken"), node("MatMul", ["x", "w"], ["y"])]
    model = proto(nodes, {"x": ["n", 16]}, {"y": 2, "a": 2}, {"bad": bad, "w": normal(2, 16, 8)})
    record = quantize(Request(saved(model, tmp_path / "m.onnx"), tmp_path, "int8-dynamic", allow_slower=True))
    assert record["layers"] == ["MatMul_y"]
    assert "left as they are, for NaN or infinite weights: broken" in record["notes"]


def test_an_operator_that_nobody_knows(tmp_path: Path) -> None:
    nodes = [node("MatMul", ["x", "w"], ["h"]), node("Odd", ["h"], ["y"], domain="acme")]
    model = proto([node("MatMul", ["x", "w"], ["y"])], {"x": ["n", 16]}, {"y": 2}, {"w": normal(2, 16, 8)})
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    model.opset_import.append(helper.make_opsetid("acme", 1))
    record = quantize(Request(saved(model, tmp_path / "m.onnx"), tmp_path))
    assert record["layers"] == ["MatMul_h"]
    assert record["proof"] is None
    assert any(note.startswith("nothing is proven: the float model refuses") for note in record["notes"])


def test_an_input_that_is_no_tensor(tmp_path: Path) -> None:
    kind = helper.make_sequence_type_proto(helper.make_tensor_type_proto(onnx.TensorProto.FLOAT, ["n", 16]))
    nodes = [node("ConcatFromSequence", ["x"], ["j"], axis=0), node("MatMul", ["j", "w"], ["y"])]
    model = proto([node("MatMul", ["x", "w"], ["y"])], {"x": ["n", 16]}, {"y": 2}, {"w": normal(2, 16, 8)})
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    model.graph.input[0].CopyFrom(helper.make_value_info("x", kind))
    source = saved(model, tmp_path / "m.onnx")
    assert quantize(Request(source, tmp_path))["layers"] == ["MatMul_y"]
    with pytest.raises(InputError, match="input x is no tensor"):
        quantize(Request(source, tmp_path, calibration=[{"x": normal(1, 2, 16)}], force=True))


def test_what_stays_float_is_said(tmp_path: Path) -> None:
    constants = {
        "w": normal(1, 1, 48, 16, size=0.3),
        "r": normal(2, 1, 48, 16, size=0.3),
        "h": normal(3, 16, 8),
    }
    nodes = [
        node("GRU", ["x", "w", "r"], ["s", ""], hidden_size=16, name="gru"),
        node("MatMul", ["s", "h"], ["y"]),
    ]
    model = proto(nodes, {"x": ["t", "n", 16]}, {"y": 4}, constants)
    record = quantize(Request(saved(model, tmp_path / "m.onnx"), tmp_path, "int4", min_cosine=0.9))
    wanted = "left in float, 92% of the numbers: GRU gru (int8-dynamic rounds it)"
    assert wanted in record["notes"]


def test_what_a_quant_does_not_round(tmp_path: Path) -> None:
    model = proto(
        [node("Conv", ["x", "w"], ["y"])], {"x": [1, 8, 6, 6]}, {"y": 4}, {"w": normal(1, 16, 8, 3, 3)}
    )
    with pytest.raises(InputError, match="int4 rounds none of its weights"):
        quantize(Request(saved(model, tmp_path / "m.onnx"), tmp_path / "out", "int4"))


def test_a_map_as_output(tmp_path: Path) -> None:
    model = small_cnn()
    kind = helper.make_map_type_proto(onnx.TensorProto.STRING, helper.make_tensor_type_proto(1, []))
    model.graph.output.append(helper.make_value_info("m", helper.make_sequence_type_proto(kind)))
    with pytest.raises(FormatError, match="has an output that is a map"):
        read_model(saved(model, tmp_path / "m.onnx"))
