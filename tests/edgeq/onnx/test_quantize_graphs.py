"""Any ONNX file through ``edgeq.onnx.quantize``: the answer stays, gates speak, what is wrong is one line."""

from __future__ import annotations

import json
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
from edgeq.errors import EdgeqError, InputError, OutputExistsError, UsageError
from edgeq.onnx import Request, quantize

CNN = [{"x": normal(i, 2, 3, 12, 12)} for i in range(30)]
VOICE = [voice_feeds(i, 16000 if i % 2 else 8000) for i in range(30)]
SOURCES: dict[str, tuple[Callable[..., onnx.ModelProto], list[Arrays]]] = {
    "cnn": (small_cnn, CNN),
    "voice": (branches, VOICE),
}
QUANTS = ["int8", "int8-dynamic", "int8-blocks", "int4", "float16", "bfloat16", "fp16", "float8"]
CLOSE = {"int4": 0.98}  # of small random weights


def go(folder: Path, kind: str = "cnn", **options: Any) -> dict[str, Any]:
    """Quantize one of the graphs with its data."""
    make, data = SOURCES[kind]
    source = saved(make(), folder / f"{kind}.onnx")
    return quantize(
        Request(source, folder / "out", **{"quant": "int8", "calibration": data, "force": True} | options)
    )


def operators(path: str) -> set[str]:
    model = onnx.load(path)
    graphs, found = [model.graph], set()
    while graphs:
        for one in graphs.pop().node:
            found.add(one.op_type)
            graphs += [
                attribute.g for attribute in one.attribute if attribute.type == onnx.AttributeProto.GRAPH
            ]
    return found


@pytest.mark.parametrize("kind", SOURCES)
@pytest.mark.parametrize("quant", QUANTS)
@pytest.mark.parametrize("with_data", [True, False])
def test_every_quant(kind: str, quant: str, with_data: bool, tmp_path: Path) -> None:
    record = go(
        tmp_path, kind, quant=quant, allow_slower=True, **({} if with_data else {"calibration": None})
    )
    path = record["files"][0]
    assert Path(path).name == f"{kind}_{quant.replace('-', '_')}.onnx"
    onnx.checker.check_model(path, full_check=True)
    assert record["gates"] == []
    assert record["exempted"] == {}
    assert record["proof"]["closeness"] >= CLOSE.get(quant, 0.998)
    assert record["proof"]["held_out"] == with_data
    assert record["proof"]["builtin_text"] != with_data
    make, data = SOURCES[kind]
    runtime = edgeq.onnx.session(path)
    expected = edgeq.onnx.session(saved(make(), tmp_path / "again.onnx"))
    for feeds in data[:3]:
        assert error(runtime.run(None, feeds), expected.run(None, feeds)) <= (
            0.3 if quant == "int4" else 0.06
        )


@pytest.mark.parametrize("scheme", ["u8s8", "s8s8", "u8u8"])
@pytest.mark.parametrize("kind", SOURCES)
def test_schemes_agree_with_the_reference_interpreter(scheme: str, kind: str, tmp_path: Path) -> None:
    make, data = SOURCES[kind]
    source = saved(make(21), tmp_path / "opset21.onnx")  # the interpreter has no older DequantizeLinear
    record = quantize(Request(source, tmp_path / "out", "int8", data, scheme=scheme, proof=False))
    path = record["files"][0]
    assert {"QuantizeLinear", "DequantizeLinear"} <= operators(path)
    assert record["session"] == ({"session.qdqisint8allowed": "1"} if scheme == "s8s8" else {})
    errors = []
    for feeds in data[:5]:
        answers = edgeq.onnx.session(path).run(None, feeds)
        plain = ReferenceEvaluator(path, new_ops=[DynamicQuantizeLSTM])
        errors.append(error(answers, plain.run(None, feeds)))
    assert min(errors) <= 1e-4
    assert max(errors) <= 0.01  # a number on the border of two codes may fall to the other


@pytest.mark.parametrize("quant", ["float16", "bfloat16"])
def test_halves_agree_with_the_reference_interpreter(quant: str, tmp_path: Path) -> None:
    path = go(tmp_path, quant=quant, proof=False)["files"][0]
    answers = edgeq.onnx.session(path).run(None, CNN[0])
    assert error(answers, ReferenceEvaluator(path).run(None, CNN[0])) <= 1e-4


def test_inside_of_branches(tmp_path: Path) -> None:
    path = go(tmp_path, "voice", quant="int8", proof=False)["files"][0]
    model = onnx.load(path)
    branch = next(one for one in model.graph.node if one.op_type == "If").attribute[0].g
    assert "QuantizeLinear" in {one.op_type for one in branch.node}
    assert "DynamicQuantizeLSTM" in {one.op_type for one in model.graph.node}


def test_report_and_record(tmp_path: Path) -> None:
    record = go(tmp_path)
    known = json.loads((tmp_path / "out" / "edgeq.json").read_text("utf-8"))["exports"]
    assert [entry["file"] for entry in known] == ["cnn_int8.onnx"]
    page = (tmp_path / "out" / "report.html").read_text("utf-8")
    assert "output y" in page
    (output,) = record["proof"]["outputs"]
    assert output["cosine_min"] <= output["cosine_mean"] <= 1
    assert record["proof"]["samples"] == 6
    assert 0 < record["proof"]["seconds_per_run"] < 1


def wide() -> onnx.ModelProto:
    """Two branches of which one has a channel that 8 bits cannot hold beside the others, and that matters."""
    weight = normal(1, 16, 8)
    scales = np.ones(16, np.float32)
    scales[0] = 1e4
    constants = {"s": scales, "t": 1 / scales, "w": weight, "v": normal(2, 16, 8)}
    nodes = [
        node("Mul", ["x", "s"], ["h"]),
        node("Sin", ["h"], ["sin"]),
        node("Add", ["h", "sin"], ["k"]),
        node("MatMul", ["k", "w2"], ["a"], name="hard"),
        node("MatMul", ["x", "v"], ["b"], name="easy"),
        node("Add", ["a", "b"], ["y"]),
    ]
    constants["w2"] = (weight / scales[:, None]).astype(np.float32)
    del constants["t"]
    return proto(nodes, {"x": ["n", 16]}, {"y": 2}, constants)


def test_automatic_exemption(tmp_path: Path) -> None:
    source = saved(wide(), tmp_path / "wide.onnx")
    data = [{"x": normal(i, 4, 16)} for i in range(30)]
    record = quantize(Request(source, tmp_path / "out", "int8", data, min_cosine=0.999))
    assert list(record["exempted"]) == ["hard"]
    assert record["layers"] == ["easy"]
    assert record["proof"]["closeness"] >= 0.999 > record["proof"]["closeness_of_all_layers"]
    assert record["gates"] == []
    assert any(note.startswith("back to float, because all quantized gave") for note in record["notes"])


def test_a_target_out_of_reach_is_said(tmp_path: Path) -> None:
    record = go(tmp_path, quant="bfloat16", min_cosine=1)
    (gate,) = record["gates"]
    assert "of output y is below 1" in gate


def test_a_file_with_nothing_quantized_is_no_success(tmp_path: Path) -> None:
    record = go(tmp_path, min_cosine=1, calibration=CNN[:4])
    assert record["layers"] == []
    assert record["gates"][0].startswith("cnn_int8.onnx: nothing is quantized, since every layer misses")


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (iter(CNN), "calibration: is an iterator, which can be read once; give a list"),
        ([*CNN[:1], 5], "calibration sample 1: is no dictionary of arrays by input"),
        ([{"y": CNN[0]["x"]}], "calibration sample 0: has no x, has y; the model's inputs are x float32"),
        ([{"x": [1, 2]}], "calibration sample 0: x is int64|x has the shape"),
        ([], "arrays: holds no sample"),
    ],
)
def test_samples_that_are_none(tmp_path: Path, data: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        go(tmp_path, calibration=data)
    assert not list((tmp_path / "out").glob("*"))


def test_keep_float(tmp_path: Path) -> None:
    record = go(tmp_path, keep_float=["^Conv_c1$", "Gemm"], proof=False)
    assert record["layers"] == ["Conv_c2", "Conv_c3"]


def test_isa(tmp_path: Path) -> None:
    """Only what may saturate is limited."""

    def largest(isa: str) -> int:
        model = onnx.load(go(tmp_path, isa=isa, proof=False)["files"][0])
        pairs = [
            onnx.numpy_helper.to_array(t)
            for t in model.graph.initializer
            if t.name.startswith("w3") and t.name.endswith("_int8")
        ]
        rows = pairs[0].reshape(16, -1, 2).astype(int).sum(axis=-1)
        return int(np.abs(rows).max())

    assert largest("avx2") <= 128 < largest("avx512-vnni")


def test_session_options_are_kept_beside_the_file(tmp_path: Path) -> None:
    source = saved(big_kernel(), tmp_path / "big.onnx")
    record = quantize(Request(source, tmp_path, "int8-dynamic", allow_slower=True))
    assert record["session"] == {"session.disable_quant_qdq": "1"}
    known = json.loads((tmp_path / "session_config.json").read_text("utf-8"))
    assert known == {"big_int8_dynamic.onnx": {"session.disable_quant_qdq": "1"}}
    runtime = edgeq.onnx.session(record["files"][0])
    assert runtime.get_session_options().get_session_config_entry("session.disable_quant_qdq") == "1"
    quantize(Request(source, tmp_path / "big_int8_dynamic.onnx", "float16", force=True))
    assert not (tmp_path / "session_config.json").exists()


def big_kernel() -> onnx.ModelProto:
    constants = {"w": normal(1, 16, 8, 3, 3)}
    return proto([node("Conv", ["x", "w"], ["y"])], {"x": ["n", 8, 6, 6]}, {"y": 4}, constants)


def empty_graph() -> onnx.ModelProto:
    return proto([node("Relu", ["x"], ["y"])], {"x": ["n", 8]}, {"y": 2}, {})


@pytest.mark.parametrize(
    ("options", "kind", "problem"),
    [
        (
            {"quant": "int7"},
            UsageError,
            "--quant int7: for an ONNX file there are bfloat16, float16, .* int2, int4, int8",
        ),
        (
            {"block_size": 48},
            UsageError,
            "--block-size 48: ONNX Runtime has kernels for 16, 32, 64, 128, 256",
        ),
        ({"method": "best"}, UsageError, "--calibration-method best: there are"),
        ({"isa": "sparc"}, UsageError, "--isa sparc: there are generic, avx2"),
        ({"scheme": "s4"}, UsageError, "--scheme s4: there are u8s8, s8s8, u8u8"),
        ({"keep_float": ["("]}, UsageError, r"--keep-float \(: is no regular expression"),
        ({"keep_float": ["nowhere"]}, UsageError, "--keep-float nowhere: matches no node and no tensor"),
        ({"keep_float": ["."]}, InputError, "nothing to quantize, every layer is kept in float"),
        ({"calibration": []}, InputError, "arrays: holds no sample"),
        ({"calibration": [{"y": CNN[0]["x"]}]}, InputError, "calibration sample 0: has no x, has y"),
        ({"calibration": [{"x": CNN[0]["x"][0]}]}, InputError, r"x has the shape \[3, 12, 12\]"),
        ({"calibration": [{"x": np.zeros((1, 3, 12, 12), "S1")}]}, InputError, "the model wants x float32"),
    ],
)
def test_bad_options(options: dict[str, Any], kind: type[EdgeqError], problem: str, tmp_path: Path) -> None:
    with pytest.raises(kind, match=problem) as caught:
        go(tmp_path, **options)
    assert len(str(caught.value).splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_bad_sources(tmp_path: Path) -> None:
    source = Path(go(tmp_path)["files"][0])
    with pytest.raises(InputError, match=r"is quantized already .*start from the float file"):
        quantize(Request(source, tmp_path / "other", "int8"))
    with pytest.raises(InputError, match="is the file being read"):
        quantize(Request(source, source, "int8", force=True))
    with pytest.raises(OutputExistsError):
        quantize(Request(tmp_path / "cnn.onnx", source, "int8"))
    with pytest.raises(InputError, match="no such file"):
        quantize(Request(tmp_path / "nowhere.onnx", tmp_path, "int8"))
    with pytest.raises(InputError, match="nothing to quantize, there is no layer with constant weights"):
        quantize(Request(saved(empty_graph(), tmp_path / "e.onnx"), tmp_path, "int8"))
