"""The lint, rule by rule: a tiny graph that breaks it, and edgeq's own files, which break none."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from foreign_graphs import node, proto, saved, small_cnn
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnx_graphs import normal

from edgeq.errors import EdgeqError, InputError
from edgeq.inspection.onnx_lint import RULES, Target, lint_onnx, missing_operators, parse_version
from edgeq.onnx import Request, quantize
from edgeq.runtimes.ort_format import write_ort

CONSTANTS: dict[str, NDArray[Any]] = {
    "s": np.float32(0.02), "z": np.uint8(128), "w": np.full((8, 8), 50, np.int8), "ws": np.full(8, 0.01, np.float32),
    "wz": np.zeros(8, np.int8), "f": normal(1, 8, 8), "b": normal(2, 8),
}  # fmt: skip
CODES = [node("QuantizeLinear", ["x", "s", "z"], ["q"]), node("DequantizeLinear", ["q", "s", "z"], ["d"])]
WEIGHT = node("DequantizeLinear", ["w", "ws", "wz"], ["wd"], axis=1)


def found(
    folder: Path, *nodes: onnx.NodeProto, version: tuple[int, int] | None = None, **more: Any
) -> list[str]:
    """``rule: what`` of every finding in a graph over ``x [n, 8]``."""
    path = saved(proto(nodes, {"x": ["n", 8]}, {"y": 2}, CONSTANTS | more), folder / "m.onnx")
    return [f"{name}: {finding.what}" for name, finding in lint_onnx(path, Target(version))]


def test_the_registry(tmp_path: Path) -> None:
    assert found(tmp_path, node("MatMul", ["x", "f"], ["y"])) == []
    assert set(RULES) == {
        "half_quantized",
        "idle_pairs",
        "blocked_products",
        "shapes",
        "versions",
        "saturation",
        "small_layers",
        "operators",
    }


def test_half_quantized(tmp_path: Path) -> None:
    assert found(tmp_path, *CODES, WEIGHT, node("MatMul", ["d", "wd"], ["y"])) == []
    for nodes, what in (
        (
            [WEIGHT, node("MatMul", ["x", "wd"], ["y"])],
            "MatMul runs in float: its weight is quantized, its input is not",
        ),
        (
            [*CODES, node("MatMul", ["d", "f"], ["y"])],
            "MatMul runs in float: its input is quantized, its weight is not",
        ),
        ([*CODES, WEIGHT, node("Gemm", ["d", "wd", "b"], ["y"])], "Gemm runs in float: its bias is float"),
    ):
        assert found(tmp_path, *nodes) == [f"half_quantized: {what}"]


def test_a_convolution_without_codes_behind_it(tmp_path: Path) -> None:
    nodes = [*CODES, node("DequantizeLinear", ["w", "ws", "wz"], ["wd"], axis=0), node("Conv", ["d", "wd"], ["c"]),
             node("Tanh", ["c"], ["y"])]  # fmt: skip
    constants = CONSTANTS | {"w": np.full((8, 8, 1), 50, np.int8)}
    path = saved(proto(nodes, {"x": ["n", 8, 4]}, {"y": 3}, constants), tmp_path / "m.onnx")
    ((name, finding),) = lint_onnx(path, Target())
    assert (name, finding.what) == (
        "half_quantized",
        "Conv runs in float: its output is not quantized (behind it: Tanh)",
    )


def test_idle_pairs(tmp_path: Path) -> None:
    nodes = [node("Tanh", ["x"], ["t"]), node("QuantizeLinear", ["t", "s", "z"], ["q"]),
             node("DequantizeLinear", ["q", "s", "z"], ["d"]), node("Exp", ["d"], ["y"])]  # fmt: skip
    what = "idle_pairs: is rounded to 8 bits and back between Tanh and Exp, which have no int8 kernel"
    assert found(tmp_path, *nodes) == [what]


@pytest.mark.parametrize("op", ["MatMul", "Gemm", "MatMulInteger"])
def test_saturation(op: str, tmp_path: Path) -> None:
    w = np.zeros((8, 8), np.int8)
    w[2:4, 5], w[3:5, 6] = 100, 100  # a pair, and two that are none
    if op == "MatMulInteger":
        nodes = [node("DynamicQuantizeLinear", ["x"], ["q", "qs", "qz"]),
                 node("MatMulInteger", ["q", "w", "qz"], ["i"]),
                 node("Cast", ["i"], ["y"], to=TensorProto.FLOAT)]  # fmt: skip
    else:
        nodes = [*CODES, WEIGHT, node(op, ["d", "wd"], ["y"])]
    wanted = ["saturation: 1 of 32 pairs of weights can saturate on x86 without VNNI"]
    assert found(tmp_path, *nodes, w=w) == wanted


def product(folder: Path, op: str, packed: NDArray[Any], **attributes: int) -> Path:
    """A graph of one product with packed weights ``[4, 96]``."""
    made = node(op, ["x", "w", "s"], ["y"], domain="com.microsoft", K=96, N=4, **attributes)
    x, y = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", size])
        for name, size in (("x", 96), ("y", 4))
    )
    constants = [numpy_helper.from_array(packed, "w"), numpy_helper.from_array(normal(1, 12), "s")]
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    graph = helper.make_graph([made], "g", [x], [y], constants)
    return saved(helper.make_model(graph, opset_imports=opsets, ir_version=8), folder / "m.onnx")


@pytest.mark.parametrize(
    ("bits", "block", "level", "nbytes", "problem"),
    [
        (4, 32, 0, 16, ""),
        (4, 48, 0, 16, "blocks of 48"),
        (3, 32, 0, 16, "3 bits"),
        (2, 32, 4, 8, ""),
        (2, 32, 1, 8, "2 bits in blocks of 32 at accuracy level 1: the matrix is dequantized"),
        (2, 16, 4, 4, "2 bits in blocks of 16"),
        (8, 32, 4, 16, "its attributes say [4, 3, 32]"),
    ],
)
def test_blocked_products(
    bits: int, block: int, level: int, nbytes: int, problem: str, tmp_path: Path
) -> None:
    packed = np.zeros((4, -(-96 // block), nbytes), np.uint8)
    path = product(tmp_path, "MatMulNBits", packed, bits=bits, block_size=block, accuracy_level=level)
    said = [finding.what for _, finding in lint_onnx(path, Target())]
    assert len(said) == bool(problem)
    assert all(problem in what for what in said)


def test_products_by_a_table_and_operators_newer_than_the_runtime(tmp_path: Path) -> None:
    path = product(tmp_path, "MatMulBnb4", np.zeros(192, np.uint8), block_size=32, quant_type=1)
    said = [f"{name}: {finding.what}" for name, finding in lint_onnx(path, Target((1, 16)))]
    assert said == [
        "versions: MatMulBnb4 is there from ONNX Runtime 1.17 on, not in 1.16",
        "blocked_products: MatMulBnb4 has no kernel on the CPU: the matrix is dequantized at every run",
    ]
    path = product(
        tmp_path, "MatMulNBits", np.zeros((4, 3, 32), np.uint8), bits=8, block_size=32, accuracy_level=4
    )
    assert [finding.what for _, finding in lint_onnx(path, Target((1, 20)))] == [
        "MatMulNBits of 8 bits is there from ONNX Runtime 1.22 on, not in 1.20"
    ]


def test_small_layers(tmp_path: Path) -> None:
    few = {"w": np.full((8, 2), 50, np.int8), "ws": np.full(2, 0.01, np.float32), "wz": np.zeros(2, np.int8)}
    product = node("MatMul", ["d", "wd"], ["y"])
    assert found(tmp_path, *CODES, WEIGHT, product, **few) == [
        "small_layers: multiplies each number 2 times only: rounding it costs more than int8 saves"
    ]
    shared = [
        node("MatMul", ["d", "wd"], ["a"]),
        node("MatMul", ["d", "wd"], ["c"]),
        node("Add", ["a", "c"], ["y"]),
    ]
    assert found(tmp_path, *CODES, WEIGHT, *shared, **few) == []  # rounded for two


def test_operators_that_a_build_lacks(tmp_path: Path) -> None:
    source = saved(small_cnn(), tmp_path / "cnn.onnx")
    _, config = write_ort(source, {}, force=False)
    assert missing_operators(source, config) == ()
    text = config.read_text("utf-8")
    assert "GlobalAveragePool" in text
    config.write_text(text.replace("GlobalAveragePool", "Relu"), "utf-8")
    lacks = missing_operators(source, config)
    ((name, finding),) = lint_onnx(source, Target(lacks=lacks))
    assert name == "operators"
    assert finding.what.startswith("GlobalAveragePool (ai.onnx, opset ")
    assert finding.where == "p"
    with pytest.raises(EdgeqError, match="cannot be read as a list of operators"):
        missing_operators(source, tmp_path / "nowhere.config")


def test_shapes(tmp_path: Path) -> None:
    model = proto([node("MatMul", ["x", "f"], ["y"])], {"x": ["n", 8]}, {"y": 2}, CONSTANTS)
    model.graph.output[0].type.tensor_type.ClearField("shape")
    ((name, finding),) = lint_onnx(saved(model, tmp_path / "m.onnx"), Target())
    assert (name, finding.where, finding.what) == ("shapes", "y", "the output says no shape")


@pytest.mark.parametrize(
    ("version", "said"),
    [
        ((1, 13), []),
        ((1, 11), ["versions: has opset 17, ONNX Runtime 1.11 ends at 16"]),
        ((1, 31), []),
        (None, []),
    ],
)
def test_versions(version: tuple[int, int] | None, said: list[str], tmp_path: Path) -> None:
    assert found(tmp_path, node("MatMul", ["x", "f"], ["y"]), version=version) == said


@pytest.mark.parametrize("text", ["1", "1.x", "", "one.two"])
def test_bad_versions(text: str) -> None:
    with pytest.raises(InputError, match=r"is no version; write it as 1\.20"):
        parse_version(text)


def test_our_own_files_are_clean_and_the_command_says_so(tmp_path: Path) -> None:
    data = [{"x": normal(i, 2, 3, 12, 12)} for i in range(4)]
    source = saved(small_cnn(), tmp_path / "cnn.onnx")
    quantize(Request(source, tmp_path / "q.onnx", "int8", data, proof=False))
    assert lint_onnx(tmp_path / "q.onnx", Target((1, 13))) == []
    quantize(Request(source, tmp_path / "full.onnx", "int8", data, full_range=True, proof=False))
    command = [
        sys.executable,
        "-m",
        "edgeq",
        "inspect",
        str(tmp_path / "full.onnx"),
        "--lint",
        "--strict",
        "--json",
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 3
    assert "lint has 0 errors and" in done.stderr
    assert {entry["rule"] for entry in json.loads(done.stdout)["findings"]} == {"saturation"}
