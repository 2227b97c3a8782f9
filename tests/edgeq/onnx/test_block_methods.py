"""Integers of an ONNX file's linear layers chosen on what these read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from foreign_graphs import node, proto, saved
from onnx_graphs import Floats, error, normal

import edgeq.onnx
from edgeq.errors import InputError, UsageError
from edgeq.onnx import Request, quantize


def correlated(count: int) -> list[dict[str, Floats]]:
    """Inputs of a few directions, so that errors of one column can make up for another's."""
    directions = normal(1, 8, 64)
    return [
        {"x": normal(10 + i, 40, 8) @ directions + normal(100 + i, 40, 64, size=0.1)} for i in range(count)
    ]


DATA = correlated(30)  # each fifth is held out


def graph() -> onnx.ModelProto:
    """Two layers that read the same, one of them stored transposed; one whose rows are no whole blocks; one more."""
    constants: dict[str, Floats] = {
        "w1": normal(2, 64, 32),
        "w2": normal(3, 40, 64),
        "w3": normal(4, 40, 32),
        "w4": normal(5, 32, 16),
    }
    nodes = [
        node("MatMul", ["x", "w1"], ["a"], name="first"),
        node("Gemm", ["x", "w2"], ["b"], name="second", transB=1),
        node("MatMul", ["b", "w3"], ["c"], name="third"),
        node("Add", ["a", "c"], ["d"]),
        node("MatMul", ["d", "w4"], ["y"], name="fourth"),
    ]
    return proto(nodes, {"x": ["n", 64]}, {"y": 2}, constants)


def go(folder: Path, method: str | None, **options: Any) -> dict[str, Any]:
    source = saved(graph(), folder / "m.onnx")
    chosen: dict[str, Any] = {
        "calibration": DATA,
        "accuracy_level": 1,
        "proof": False,
        "force": True,
    } | options
    return quantize(Request(source, folder / f"{method}.onnx", "int4", block_method=method, **chosen))


def answers_error(folder: Path, path: str) -> float:
    """On inputs that were not calibrated on."""
    float_graph, graph = edgeq.onnx.session(folder / "m.onnx"), edgeq.onnx.session(path)
    return float(
        np.mean([error(graph.run(None, feeds), float_graph.run(None, feeds)) for feeds in DATA[4::5]])
    )


@pytest.mark.parametrize("asymmetric", [False, True])
def test_methods_leave_less_error_than_weights_alone(tmp_path: Path, asymmetric: bool):
    errors = {}
    for method in (None, "clip", "gptq", "descent"):
        record = go(tmp_path, method, asymmetric=asymmetric)
        errors[method] = answers_error(tmp_path, record["files"][0])
        said = f"integers of 3 layers chosen on arrays ({method})"
        assert (said in record["notes"]) == (method is not None), record["notes"]
        operators = [each.op_type for each in onnx.load(record["files"][0]).graph.node]
        assert operators.count("MatMulNBits") == 4
    assert errors["clip"] < 0.95 * errors[None], errors
    assert max(errors["gptq"], errors["descent"]) < 0.7 * errors["clip"], errors


def test_the_standard_form_holds_them_too(tmp_path: Path):
    """It leaves the third layer in float, as it does without a method."""
    errors = [
        answers_error(tmp_path, go(tmp_path, method, dialect="standard")["files"][0])
        for method in (None, "gptq")
    ]
    assert errors[1] < 0.7 * errors[0], errors


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        ("awq", {}, "--method awq: for an ONNX file there are descent, gptq, clip"),
        ("gptq", {"nearest": True}, "--method and --nearest round in two ways"),
        ("gptq", {"calibration": None}, "--method gptq needs --calibration"),
    ],
)
def test_what_does_not_go_together_is_refused(
    tmp_path: Path, method: str, options: dict[str, Any], message: str
):
    with pytest.raises(UsageError, match=message):
        go(tmp_path, method, **options)


def test_data_that_overflows_is_named(tmp_path: Path):
    endless = [{"x": np.full((4, 64), 1e30, np.float32)}]
    with pytest.raises(InputError, match="x is NaN or infinite with this calibration data"):
        go(tmp_path, "gptq", calibration=endless)
