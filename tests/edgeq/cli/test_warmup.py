"""``edgeq warmup``: what a model's run compiles, compiled ahead."""

import json
import os
import subprocess
import sys
from pathlib import Path

import tiny_gguf


def warmup(model: Path, cache: Path, *options: str) -> str:
    """In a process of its own, so that nothing is in memory yet."""
    command = [sys.executable, "-m", "edgeq", "warmup", str(model), "-t", "1", *options]
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(cache)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    assert done.stderr == ""  # no terminal, no announcement
    return done.stdout


def test_a_second_time_nothing_is_compiled(tmp_path: Path):
    model = tiny_gguf.write(tmp_path / "tiny.gguf")
    table = warmup(model, tmp_path / "cache").splitlines()
    assert table[0].split() == ["type", "instruction", "set", "kernels", "seconds"]
    count = sum(int(line.split()[-2]) for line in table[1:-1])
    assert count > 0
    assert table[-1].startswith(f"{count} kernels compiled, 0 loaded from the cache; ")
    again = json.loads(warmup(model, tmp_path / "cache", "--json"))
    assert again["compiled"] == []
    assert again["loaded"] >= count
    assert again["seconds"] > 0
    table = warmup(model, tmp_path / "cache").splitlines()
    assert len(table) == 1


def test_what_is_no_model_is_refused(edgeq, tmp_path: Path):
    done = edgeq("warmup", tmp_path / "missing.gguf")
    assert (done.code, done.out) == (1, "")
    assert "no such file" in done.err
