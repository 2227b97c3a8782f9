"""``edgeq warmup``: what a model's run compiles, compiled ahead."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_gguf

from edgeq.engine import warmup as engine
from edgeq.kernels_cpu.compiling import Compiled, Purpose


def warmup(model: Path, *options: str) -> str:
    """In a process of its own, so that nothing is in memory yet; kernels may be on disk from other tests."""
    command = [sys.executable, "-m", "edgeq", "warmup", str(model), "-t", "1", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr == ""  # no terminal, no announcement
    return done.stdout


def test_a_second_time_nothing_is_compiled(tmp_path: Path):
    model = tiny_gguf.write(tmp_path / "tiny.gguf")
    first = json.loads(warmup(model, "--json"))
    count = sum(line["kernels"] for line in first["compiled"]) + first["loaded"]
    assert count > 0
    assert first["seconds"] > 0
    (line,) = warmup(model).splitlines()
    assert line.startswith("0 kernels compiled, ")
    assert line.split(" loaded")[0].split()[-1] != "0"


def test_the_table(edgeq, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    q4_k = [Compiled(kernel, Purpose("Q4_K", "avx2"), 1.25) for kernel in ("one_row", "many_rows")]
    lines = engine._lines(
        [*q4_k, Compiled("add", Purpose("", "avx2"), 0.5), Compiled("sort", Purpose(), 0.25)]
    )
    monkeypatch.setattr(engine, "warm_up", lambda *arguments: engine.Warmup(lines, 7, 3.5))
    done = edgeq("warmup", tmp_path / "model.gguf")
    assert done.out.splitlines() == [
        "type  instruction set  kernels  seconds",
        "any   any                    1      0.2",
        "any   avx2                   1      0.5",
        "Q4_K  avx2                   2      2.5",
        "4 kernels compiled, 7 loaded from the cache; 3.5 s in all",
    ]
    found = json.loads(edgeq("warmup", tmp_path / "model.gguf", "--json").out)
    assert found["loaded"] == 7
    assert found["compiled"][2] == {
        "type_name": "Q4_K",
        "instruction_set": "avx2",
        "kernels": 2,
        "seconds": 2.5,
    }


def test_what_is_no_model_is_refused(edgeq, tmp_path: Path):
    done = edgeq("warmup", tmp_path / "missing.gguf")
    assert (done.code, done.out) == (1, "")
    assert "no such file" in done.err
