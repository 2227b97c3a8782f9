"""Which instruction set a target gets: never one whose features it lacks."""

import os
import subprocess
import sys

import pytest

from edgeq.devices import detect
from edgeq.formats.errors import EdgeqError
from edgeq.kernels_cpu import isa as isas

CODE = "from edgeq.devices.detect import instruction_set; print(instruction_set().name)"


def detected(**environment: str) -> str:
    run = subprocess.run(
        [sys.executable, "-c", CODE],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, **environment},
    )
    return run.stdout.strip()


def test_the_best_set_of_the_features_wins():
    assert detect.best(frozenset()) is isas.PORTABLE
    assert detect.best(isas.AVX2.features | {"sse3"}) is isas.AVX2
    assert detect.best(isas.AVX512_VNNI.features) is isas.AVX512_VNNI
    assert detect.best(isas.AVX512_VNNI.features - {"avx512vnni"}) is isas.AVX2
    assert detect.best(frozenset({"neon", "dotprod"})) is isas.NEON_DOTPROD


def test_a_later_mention_of_a_feature_wins():
    assert detect.enabled("+avx2, +fma,-avx2") == {"fma"}
    assert detect.enabled("") == frozenset()


def test_the_target_of_numba_counts_and_not_the_host():
    assert detected(NUMBA_CPU_NAME="generic", NUMBA_CPU_FEATURES="") == "portable"
    assert detected(NUMBA_CPU_NAME="generic", NUMBA_CPU_FEATURES="+neon,+dotprod,+i8mm") == "neon-i8mm"


def test_a_lower_set_can_be_forced_and_a_missing_one_not(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("EDGEQ_ISA", "Portable")
    assert detect.instruction_set() is isas.PORTABLE
    monkeypatch.setenv("EDGEQ_ISA", "sse9")
    with pytest.raises(EdgeqError, match="sse9: no such instruction set"):
        detect.instruction_set()
    monkeypatch.setattr(detect, "target_features", lambda: isas.AVX2.features)
    monkeypatch.setenv("EDGEQ_ISA", "avx512vnni")
    with pytest.raises(EdgeqError, match="lacks avx512bw"):
        detect.instruction_set()
