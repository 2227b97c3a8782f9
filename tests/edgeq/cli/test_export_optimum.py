"""Exports by optimum in another interpreter; here a script stands for it, which writes a graph as optimum would."""

from __future__ import annotations

import json
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from foreign_graphs import node, proto, saved
from onnx_graphs import normal

from edgeq.errors import InputError, MissingDependencyError
from edgeq.optimum import Request, run, task_of

FAKE = """#!{python}
import pathlib, shutil, sys
arguments = sys.argv[1:]
if "-c" in arguments:
    sys.exit({missing})
if {fails}:
    print("reading the model", file=sys.stderr)
    sys.exit("RuntimeError: no such task")
assert arguments[:3] == ["-P", "-m", "optimum.exporters.onnx"]
assert arguments[3:6] == ["--task", "feature-extraction", "--model"]
out = pathlib.Path(arguments[-1])
out.mkdir()
shutil.copy({graph!r}, out / "model.onnx")
(out / "config.json").write_text("{{}}")
"""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "strange"
    folder.mkdir()
    config = {"model_type": "strange", "architectures": ["StrangeModel"]}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture
def interpreter(tmp_path: Path) -> Callable[..., Path]:
    graph = proto([node("MatMul", ["x", "w"], ["y"])], {"x": ["n", 64]}, {"y": 2}, {"w": normal(1, 64, 64)})
    source = saved(graph, tmp_path / "float.onnx")

    def make(missing: int = 0, fails: bool = False) -> Path:
        path = tmp_path / "python"
        path.write_text(FAKE.format(python=sys.executable, missing=missing, fails=fails, graph=str(source)))
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        return path

    return make


def test_export_and_quantize(model: Path, interpreter: Callable[..., Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    (record,) = run(Request(model, "int8-dynamic", out, interpreter(), proof=False))
    assert record["file"] == "model_int8_dynamic.onnx"
    assert record["layers"] == ["MatMul_y"]
    names = {"model_int8_dynamic.onnx", "config.json", "edgeq.json", "report.html"}
    assert {path.name for path in out.iterdir()} == names


def test_float(model: Path, interpreter: Callable[..., Path], tmp_path: Path) -> None:
    assert run(Request(model, "float32", tmp_path / "out", interpreter())) == []
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"model.onnx", "config.json"}


def test_an_interpreter_without_optimum(
    edgeq: Callable[..., Any], model: Path, interpreter: Callable[..., Path], tmp_path: Path
) -> None:
    python = interpreter(missing=1)
    with pytest.raises(
        MissingDependencyError, match=r"has no optimum .*; python -m venv optimum-env, optimum-env/"
    ):
        run(Request(model, "int8", tmp_path / "out", python))
    with pytest.raises(InputError, match="is no Python interpreter"):
        run(Request(model, "int8", tmp_path / "out", tmp_path / "nowhere"))
    options = ["--exporter", "optimum", "--exporter-python", python]
    done = edgeq("export", model, "--to", "onnx", "-q", "int8", "-o", tmp_path / "out", *options)
    assert done.code == 1
    assert "--exporter-python optimum-env/bin/python" in done.err
    done = edgeq("export", model, "--to", "gguf", "-q", "Q8_0", "-o", tmp_path / "out", *options)
    assert "--exporter optimum goes with --to onnx" in done.err
    done = edgeq("export", model, "--to", "onnx", "-q", "int8", "--dialect", "ort", *options)
    assert "--dialect does not go with --exporter optimum" in done.err
    assert not (tmp_path / "out").exists()


def test_what_optimum_refuses(model: Path, interpreter: Callable[..., Path], tmp_path: Path) -> None:
    problem = r"optimum cannot export it as feature-extraction \(RuntimeError: no such task\)"
    with pytest.raises(InputError, match=problem):
        run(Request(model, "int8", tmp_path / "out", interpreter(fails=True)))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("architecture", "task"),
    [
        ("OPTForCausalLM", "text-generation-with-past"),
        ("T5ForConditionalGeneration", "text2text-generation-with-past"),
        ("ElectraForSequenceClassification", "text-classification"),
        ("ElectraModel", "feature-extraction"),
    ],
)
def test_tasks(architecture: str, task: str, model: Path) -> None:
    (model / "config.json").write_text(json.dumps({"architectures": [architecture]}))
    assert task_of(model) == task
