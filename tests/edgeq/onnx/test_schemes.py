"""Every scheme of weights: ONNX Runtime's answers and those of an interpreter in NumPy are the same to 1e-4."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from contrib_operators import interpreter
from foreign_graphs import node, proto, saved
from onnx_graphs import error, normal

from edgeq.errors import UsageError
from edgeq.onnx import Request, quantize, session

IDS = np.arange(7)[None] * 150


def encoder() -> onnx.ModelProto:
    """A table, a Gemm, a MatMul of a transposed matrix and a convolution, of sizes that blocks of 32 do not divide."""
    constants = {
        "table": normal(1, 1100, 64),
        "w": normal(2, 80, 64, size=0.1),
        "b": normal(3, 80),
        "v": normal(4, 48, 80, size=0.1),
        "k": normal(5, 32, 48, 3, size=0.1),
        "flat": np.array([-1, 64]),
        "back": np.array([1, -1, 80]),
    }
    nodes = [
        node("Gather", ["table", "ids"], ["e"]),
        node("Reshape", ["e", "flat"], ["f"]),
        node("Gemm", ["f", "w", "b"], ["g"], transB=1),
        node("Relu", ["g"], ["r"]),
        node("Reshape", ["r", "back"], ["t"]),
        node("Transpose", ["v"], ["vt"], perm=[1, 0]),
        node("MatMul", ["t", "vt"], ["m"]),
        node("Transpose", ["m"], ["mt"], perm=[0, 2, 1]),
        node("Conv", ["mt", "k"], ["y"], pads=[1, 1]),
    ]
    types = {"ids": onnx.TensorProto.INT64}
    return proto(nodes, {"ids": [1, "n"]}, {"y": 3}, constants, types=types)


BLOCKS = {
    f"{quant}-{dialect}-{size}{'-zeros' * asymmetric}{'-nearest' * nearest}": (
        quant,
        {"dialect": dialect, "block_size": size, "asymmetric": asymmetric, "nearest": nearest},
    )
    for quant in ("int2", "int4", "int8-blocks")
    for dialect in ("ort", "standard")
    for size in ((16, 32, 64, 128, 256) if quant == "int4" else (32, 256))
    for asymmetric in (False, True)
    for nearest in (False, True)
    if not nearest or size == 32
}
OTHERS: dict[str, tuple[str, dict[str, Any]]] = {
    f"{quant}-{size}": (quant, {"block_size": size}) for quant in ("nf4", "fp4") for size in (16, 64, 256)
} | {
    "float8": ("float8", {}),
    "float8-per-tensor": ("float8", {"granularity": "tensor"}),
    "float16": ("float16", {}),
    "bfloat16": ("bfloat16", {}),
    "fp16": ("fp16", {}),
}
SCHEMES = BLOCKS | OTHERS


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(encoder(), tmp_path_factory.mktemp("encoder") / "encoder.onnx")


@pytest.mark.parametrize("scheme", SCHEMES.values(), ids=SCHEMES)
def test_agrees_with_the_interpreter(
    scheme: tuple[str, dict[str, Any]], source: Path, tmp_path: Path
) -> None:
    quant, options = scheme
    if quant in ("int2", "int4", "int8-blocks"):
        options = options | {"accuracy_level": 1}  # 4 rounds activations, which the interpreter does not
    path = quantize(Request(source, tmp_path, quant, proof=False, **options))["files"][0]
    (answer,) = session(path).run(None, {"ids": IDS})
    # The interpreter rounds after every node, the runtime only where two casts do not cancel out.
    most = 2e-3 if quant == "fp16" else 1e-4
    assert error([answer], interpreter(path).run(None, {"ids": IDS})) <= most
    assert error([answer], session(source).run(None, {"ids": IDS})) <= {
        "int2": 1.0, "int4": 0.3, "nf4": 0.3, "fp4": 0.3,
    }.get(quant, 0.06)  # fmt: skip


def operators(path: str) -> set[str]:
    return {one.op_type for one in onnx.load(path).graph.node}


def test_operators_of_the_dialects(source: Path, tmp_path: Path) -> None:
    for quant, dialect, wanted, opset in (
        ("int4", "ort", {"MatMulNBits", "GatherBlockQuantized"}, 17),
        ("int4", "standard", {"DequantizeLinear"}, 21),
        ("int2", "standard", {"DequantizeLinear"}, 25),
        ("nf4", "ort", {"MatMulBnb4", "GatherBlockQuantized"}, 17),
    ):
        out = tmp_path / f"{quant}-{dialect}.onnx"
        quantize(Request(source, out, quant, dialect=dialect, proof=False))
        assert wanted <= operators(str(out))
        (opset_import,) = [one for one in onnx.load(out).opset_import if one.domain == ""]
        assert opset_import.version == opset


def test_float8_scales(source: Path, tmp_path: Path) -> None:
    """One for each output channel, whichever axis that is, or one for all."""
    for granularity, shapes in (("channel", {(1100,), (80,), (48,), (32,)}), ("tensor", {()})):
        path = quantize(
            Request(source, tmp_path, "float8", granularity=granularity, proof=False, force=True)
        )["files"][0]
        found = {tuple(t.dims) for t in onnx.load(path).graph.initializer if t.name.endswith("_scale")}
        assert found == shapes


def test_what_has_no_kernel_is_said(source: Path, tmp_path: Path) -> None:
    notes = quantize(Request(source, tmp_path, "int2", block_size=256, proof=False))["notes"]
    assert any("no 2-bit kernel" in note for note in notes)
    notes = quantize(Request(source, tmp_path, "nf4", proof=False))["notes"]
    assert any("dequantizes such weights at every run" in note for note in notes)


def test_the_accuracy_level_goes_where_the_dialect_has_it(source: Path, tmp_path: Path) -> None:
    record = quantize(Request(source, tmp_path / "a.onnx", "int4", accuracy_level=1, proof=False))
    products = [one for one in onnx.load(record["files"][0]).graph.node if one.op_type == "MatMulNBits"]
    levels = {a.i for one in products for a in one.attribute if a.name == "accuracy_level"}
    assert (levels, record["session"]) == ({1}, {})
    standard = Request(source, tmp_path / "b.onnx", "int4", accuracy_level=1, dialect="standard", proof=False)
    assert quantize(standard)["session"] == {"session.qdq_matmulnbits_accuracy_level": "1"}
    with pytest.raises(UsageError, match="--accuracy-level 3: on the CPU only 1 and 4 differ"):
        quantize(Request(source, tmp_path / "c.onnx", "int4", accuracy_level=3))


@pytest.mark.parametrize(
    ("quant", "options", "problem"),
    [
        ("int8", {"nearest": True}, "--nearest goes with --quant int2, int4, int8-blocks, not with int8"),
        ("float16", {"block_size": 64}, "--block-size goes with --quant int2, int4, int8-blocks, nf4, fp4"),
        (
            "int4",
            {"granularity": "tensor"},
            "--per-tensor goes with --quant int8, int8-dynamic, float8, not with int4",
        ),
    ],
)
def test_an_option_of_another_quant(
    quant: str, options: dict[str, Any], problem: str, source: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=problem):
        quantize(Request(source, tmp_path, quant, **options))


def test_what_is_slower_than_float_is_no_success(tmp_path: Path) -> None:
    """ONNX Runtime dequantizes four million codes at every run of one row."""
    product = proto(
        [node("MatMul", ["x", "w"], ["y"])], {"x": [1, 2048]}, {"y": 2}, {"w": normal(1, 2048, 2048)}
    )
    source = saved(product, tmp_path / "m.onnx")
    for allowed, said in ((False, ["nf4.onnx: runs at 0."]), (True, [])):
        options = {"min_cosine": 0.9, "allow_slower": allowed, "force": True}
        record = quantize(Request(source, tmp_path / "nf4.onnx", "nf4", **options))
        assert [gate[:20] for gate in record["gates"]] == said
