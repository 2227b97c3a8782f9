"""Kernels compiled before a run: a child takes its share, and what it does not do is done all the same."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from edgeq.kernels_cpu import ahead
from edgeq.kernels_cpu.ahead import Need, compile_ahead
from edgeq.kernels_cpu.isa import PORTABLE

RUN = """
import numpy as np
from edgeq.kernels_cpu import threads
from edgeq.kernels_cpu.ahead import Need, compile_ahead
from edgeq.kernels_cpu.isa import PORTABLE
from edgeq.kernels_cpu.decode import f16, q8_0 as decoder
from edgeq.kernels_cpu.encode import encode, q8_0 as encoder
threads.set_threads(2)
compile_ahead([Need("decode", "F16"), Need("encode", "Q8_0"), Need("decode", "Q8_0")], PORTABLE)
kernels = f16.decode_blocks, encoder.encode_blocks, decoder.decode_blocks
print(*(sum(k.stats.cache_misses.values()) for k in kernels))
encode("Q8_0", np.ones((1, 32), np.float32), None, PORTABLE)
print(sum(encoder.encode_blocks.stats.cache_hits.values()))
"""


def run(cache: Path, before: str = "") -> list[str]:
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(cache)}
    return subprocess.run(
        [sys.executable, "-c", before + RUN], capture_output=True, text=True, check=True, env=environment
    ).stdout.split()


def test_a_child_compiles_its_share(tmp_path: Path):
    assert run(tmp_path) == ["1", "1", "0", "0"]  # of F16, the encoder and the decoder; a hit of the encoder
    assert list(tmp_path.rglob("q8_0.decode_blocks*.nbi"))
    assert run(tmp_path) == ["0", "0", "0", "1"]


@pytest.mark.parametrize("executable", [sys.executable + "-is-not-there", "/bin/false"])
def test_a_child_that_fails_changes_nothing(tmp_path: Path, executable: str):
    assert run(tmp_path, f"import sys\nsys.executable = {executable!r}\n") == ["1", "1", "0", "0"]
    assert not list(tmp_path.rglob("q8_0.decode_blocks*.nbi"))


def test_the_shares_are_alike():
    needs = [Need("refine", "Q4_K"), Need("encode", "Q4_K"), Need("encode", "Q6_K"), Need("refine", "Q6_K")]
    own, others = ahead._shares(needs)
    assert sorted(own + others) == sorted(needs)
    assert own == [needs[0], needs[3]]


def test_what_is_in_the_cache_starts_no_child(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ahead, "_is_missing", lambda need: False)
    monkeypatch.setattr(subprocess, "Popen", lambda *arguments, **options: pytest.fail("a child was started"))
    compile_ahead([Need("encode", "Q4_K"), Need("encode", "Q6_K")], PORTABLE)


def test_types_without_kernels_need_nothing():
    assert not ahead._is_missing(Need("decode", "F32"))
    assert not ahead._is_missing(Need("refine", "F16"))
