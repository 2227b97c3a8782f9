"""``edgeq quantize model.onnx``: what it prints, its exit codes, and options of the other kind of file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from foreign_graphs import saved, small_cnn
from onnx_graphs import normal

Command = Callable[..., Any]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """The small CNN, with a folder of samples beside it."""
    (tmp_path / "data").mkdir()
    for index in range(6):
        np.savez(tmp_path / "data" / f"{index}.npz", x=normal(index, 2, 3, 12, 12))
    return saved(small_cnn(), tmp_path / "cnn.onnx")


def test_what_it_prints(edgeq: Command, model: Path) -> None:
    target = model.with_name("q.onnx")
    done = edgeq("quantize", model, "-o", target, "-q", "int8", "--calibration", model.with_name("data"))
    assert done.code == 0, done.err
    labels = [line[:14].strip() for line in done.out.splitlines()]
    assert labels[:5] == ["file", "model", "size", "converted in", "calibrated on"]
    assert labels[5:7] == ["proven in", "compared on"]
    assert "output y" in labels
    assert "3 batch norms, scales and shifts folded" in done.err
    assert target.is_file()


def test_json_and_the_gate(edgeq: Command, model: Path) -> None:
    options = ["-q", "int8-dynamic", "--min-cosine", "1", "--json"]
    done = edgeq("quantize", model, "-o", model.parent / "out", *options)
    assert done.code == 3
    record = json.loads(done.out)
    assert Path(record["files"][0]).name == "cnn_int8_dynamic.onnx"
    assert record["gates"]
    assert done.err.splitlines()[-1].startswith("edgeq: error: cnn_int8_dynamic.onnx: nothing is quantized")


def test_a_budget_of_any_graph(edgeq: Command, model: Path) -> None:
    """Answers from the proof, costs from a process of its own; one line for each limit that is broken."""
    budget = model.with_name("budget.toml")
    budget.write_text(
        'min_cosine = 0.5\nmax_p95 = "0.0001ms"\nmax_memory = "1MB"\nmax_size = "1GB"\nmax_kl_mean = 1\n'
    )
    options = ["-q", "int8-dynamic", "--allow-slower", "--min-cosine", "0.5", "--budget", budget, "--json"]
    done = edgeq("quantize", model, "-o", model.with_name("q.onnx"), *options)
    assert done.code == 3, done.err
    record = json.loads(done.out)
    assert (record["gates"], len(record["broken"])) == ([], 3)
    said = [line for line in done.err.splitlines() if line.startswith("edgeq: gate: q.onnx: ")]
    for line, what in zip(said, ("latency at 95 %", "peak memory", "mean KL was not measured"), strict=True):
        assert line.startswith(f"edgeq: gate: q.onnx: {what}")
    cost = record["measured"]["cost"]
    assert 0 < cost["latency_p50"] <= cost["latency_p95"]
    done = edgeq("quantize", model, "-o", model.with_name("r.onnx"), "--no-proof", "--budget", budget)
    assert (done.code, done.out) == (2, "")


@pytest.mark.parametrize(
    ("options", "code", "problem"),
    [
        (["--imatrix", "x"], 2, "--imatrix goes with GGUF, but"),
        (["--dry-run"], 2, "--dry-run goes with GGUF, but"),
        (["--effort", "best"], 2, "--effort goes with GGUF, but"),
        (["--min-cosine", "2"], 2, "--min-cosine 2: must be above 0 and at most 1"),
        (["--resize", "12", "--calibration", "."], 2, "--resize 12: must be HEIGHTxWIDTH"),
        (["--resize", "99999x99999", "--calibration", "."], 2, "--resize 99999x99999: must be"),
        (["--output", "nowhere.gguf"], 2, "--output nowhere.gguf: "),
        (["--resize", "12x12"], 2, "--resize goes with --calibration"),
        (
            ["--normalize", "1/0", "--calibration", "."],
            2,
            "--normalize 1/0: must be imagenet or MEANS/DEVIATIONS",
        ),
        (["--normalize", "nan/1", "--calibration", "."], 2, "of numbers from 0 to 1"),
        (["--normalize", "127.5/127.5", "--calibration", "."], 2, "of numbers from 0 to 1"),
        (["--calibration", "nowhere"], 1, "nowhere: no such file or directory"),
    ],
)
def test_bad_options(edgeq: Command, model: Path, options: list[str], code: int, problem: str) -> None:
    done = edgeq("quantize", model, "-o", model.parent / "out", "-q", "int8", *options)
    assert done.code == code
    assert problem in done.err
    assert "Traceback" not in done.err
    assert not (model.parent / "out").exists()


def test_options_of_onnx_for_another_file(edgeq: Command, model: Path) -> None:
    other = model.with_name("m.gguf")
    other.write_bytes(b"GGUF")
    done = edgeq("quantize", other, "-o", model.parent / "out", "-q", "Q8_0", "--isa", "avx2")
    assert done.code == 2
    assert "--isa goes with ONNX, but" in done.err


def test_a_broken_file(edgeq: Command, model: Path) -> None:
    model.write_bytes(model.read_bytes()[:-40])
    done = edgeq("quantize", model, "-o", model.parent / "out", "-q", "int8")
    assert done.code == 1
    assert "is not a readable ONNX file" in done.err
