"""Single layers as the user wants them, and 16-bit activations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import pytest
from foreign_graphs import node, proto, saved
from onnx.reference import ReferenceEvaluator
from onnx_graphs import Floats, error, normal

import edgeq.onnx
from edgeq.errors import UsageError
from edgeq.onnx import Request, quantize

DATA = [{"x": normal(i, 2, 3, 8, 8)} for i in range(12)]


def two_kinds(opset: int = 21) -> onnx.ModelProto:
    """Conv, Relu, Conv, Flatten, MatMul, Relu, Gemm."""
    constants: dict[str, Floats] = {
        "k1": normal(1, 8, 3, 3, 3, size=0.3),
        "k2": normal(2, 4, 8, 3, 3, size=0.2),
        "w1": normal(3, 256, 32, size=0.1),
        "w2": normal(4, 32, 16, size=0.3),
        "b2": normal(5, 16),
    }
    nodes = [
        node("Conv", ["x", "k1"], ["c1"], pads=[1] * 4, name="first"),
        node("Relu", ["c1"], ["r1"]),
        node("Conv", ["r1", "k2"], ["c2"], pads=[1] * 4, name="second"),
        node("Flatten", ["c2"], ["f"]),
        node("MatMul", ["f", "w1"], ["m"], name="third"),
        node("Relu", ["m"], ["r2"]),
        node("Gemm", ["r2", "w2", "b2"], ["y"], name="fourth"),
    ]
    return proto(nodes, {"x": ["n", 3, 8, 8]}, {"y": 2}, constants, opset)


def go(folder: Path, *node_types: str, opset: int = 21, **options: Any) -> dict[str, Any]:
    source = saved(two_kinds(opset), folder / "m.onnx")
    chosen: dict[str, Any] = {"calibration": DATA, "quant": "int8", "proof": False, "force": True} | options
    return quantize(Request(source, folder / "q.onnx", node_types=node_types, **chosen))


def zero_points(path: str) -> dict[str, str]:
    """Type of the codes of each activation, by its name."""
    known = {one.name: one.data_type for one in onnx.load(path).graph.initializer}
    names = {
        onnx.TensorProto.UINT8: "uint8",
        onnx.TensorProto.UINT16: "uint16",
        onnx.TensorProto.INT16: "int16",
    }
    return {
        name.removesuffix("_zero_point"): names[kind]
        for name, kind in known.items()
        if name.endswith("_zero_point") and kind in names
    }


@pytest.mark.parametrize("opset", [17, 21])
def test_sixteen_bits(opset: int, tmp_path: Path) -> None:
    record = go(tmp_path, "^second$=int16", "third=int16", opset=opset)
    path = record["files"][0]
    assert record["node_types"] == {"second": "int16", "third": "int16"}
    # The third layer reads the second's codes through a Flatten, so these have 16 bits, too.
    assert zero_points(path) == {"x": "uint8", "r1": "uint16", "c2": "uint16", "r2": "uint8"}
    domains = {one.domain for one in onnx.load(path).graph.node if one.op_type == "QuantizeLinear"}
    assert domains == ({""} if opset == 21 else {"", "com.microsoft"})
    onnx.checker.check_model(path)
    expected = edgeq.onnx.session(tmp_path / "m.onnx").run(None, DATA[0])
    answers = edgeq.onnx.session(path).run(None, DATA[0])
    assert error(answers, expected) < 0.05
    if opset == 21:
        assert error(answers, ReferenceEvaluator(path).run(None, DATA[0])) < 0.01  # codes at a border


def test_sixteen_bits_are_closer(tmp_path: Path) -> None:
    errors = []
    for types in ([], [".=int16"]):
        path = go(tmp_path, *types, isa="avx512-vnni")["files"][0]
        runs = [edgeq.onnx.session(one).run(None, DATA[0]) for one in (path, tmp_path / "m.onnx")]
        errors.append(error(*runs))
    assert errors[1] < 0.8 * errors[0]
    assert set(zero_points(path).values()) == {"uint16"}


def test_signed_codes_of_sixteen_bits(tmp_path: Path) -> None:
    assert zero_points(go(tmp_path, "fourth=int16", scheme="s8s8")["files"][0])["r2"] == "int16"


def test_float_dynamic_and_the_first_match(tmp_path: Path) -> None:
    record = go(tmp_path, "first|fourth=float", "w1=dynamic", "second|fourth=int8")
    types = {"first": "float", "fourth": "float", "third": "dynamic", "second": "int8"}
    assert record["node_types"] == types
    assert record["layers"] == ["second", "third"]
    operators = [one.op_type for one in onnx.load(record["files"][0]).graph.node]
    assert operators.count("DynamicQuantizeLinear") == 1
    assert operators.count("Gemm") == 1


def test_exempted_to_sixteen_bits(tmp_path: Path) -> None:
    record = go(tmp_path, exempt_to="int16", min_cosine=0.99995, proof=True, allow_slower=True)
    assert record["exempted"]
    assert record["exempted_to"] == "int16"
    assert "uint16" in zero_points(record["files"][0]).values()
    assert any(note.startswith("back to int16, because all quantized gave") for note in record["notes"])


@pytest.mark.parametrize(
    ("node_types", "options", "problem"),
    [
        (["first"], {}, "--node-type first: must be PATTERN=TYPE, such as ffn_down=int16"),
        (["=int8"], {}, "must be PATTERN=TYPE"),
        (["first=int4"], {}, "--node-type first=int4: for int8 there are dynamic, float, int16, int8"),
        (["first=int16"], {"quant": "int8-dynamic"}, "for int8-dynamic there are dynamic, float"),
        (["(=int8"], {}, "is no regular expression"),
        (["fifth=int8"], {}, "--node-type fifth=int8: matches no convolution or linear layer"),
        (["first=dynamic"], {}, "first is a convolution, and only linear layers can be dynamic"),
        (["third=int8", "third=float"], {}, "an earlier pattern decides about all that it matches"),
        (["third=int8"], {"calibration": None}, "third cannot be int8 without --calibration"),
        ([], {"exempt_to": "int4"}, "--exempt-to int4: for int8 there is float or int16"),
        ([], {"exempt_to": "int16", "quant": "int4"}, "--exempt-to int16: for int4 there is float"),
    ],
)
def test_what_cannot_be(node_types: list[str], options: dict[str, Any], problem: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        go(tmp_path, *node_types, **options)
    assert problem in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def classifier(folder: Path) -> Path:
    model = two_kinds()
    model.graph.output[0].name = model.graph.node[-1].output[0] = "logits"
    return saved(model, folder / "c.onnx")


def test_max_kl_exempts_until_it_holds(tmp_path: Path) -> None:
    source = classifier(tmp_path)

    def made(max_kl: float | None) -> dict[str, Any]:
        request = Request(
            source, tmp_path / "q.onnx", "int8", DATA, allow_slower=True, force=True, max_kl=max_kl
        )
        record = quantize(request)
        assert record["proof"]["kl"] == record["proof"]["outputs"][0]["kl_mean"] > 0
        assert (record["proof"]["speed_of_all_layers"] is not None) == bool(record["exempted"])
        return record

    free = made(None)
    assert made(1)["layers"] == free["layers"]
    limit = free["proof"]["kl"] / 2
    held = made(limit)
    assert len(held["layers"]) < len(free["layers"])
    assert held["proof"]["kl"] <= limit or held["gates"]
    impossible = made(1e-9)
    assert impossible["gates"][0].startswith(
        "q.onnx: nothing is quantized, since every layer misses --min-cosine"
    )
    assert "or --max-kl 1e-09" in impossible["gates"][0]


def test_max_kl_without_classes(tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match=r"--max-kl 0.1: no output is named as logits, scores or classes, but y"
    ):
        go(tmp_path, max_kl=0.1)
