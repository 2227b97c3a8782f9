"""Kernels on ARM, under QEMU: ``make arm64`` prepares what they need; without it these tests are skipped."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ARM64 = ROOT / ".arm64"
QEMU = ARM64 / "host" / "usr" / "bin" / "qemu-aarch64-static"
# LLVM does not know QEMU's CPU, so its features are named; each line allows one more instruction.
FEATURES = {
    "neon": "+neon",
    "neon-dotprod": "+neon,+dotprod",
    "neon-i8mm": "+neon,+dotprod,+i8mm",
}

pytestmark = [
    pytest.mark.skipif(not (ARM64 / "ready").exists(), reason="make arm64 has not prepared an arm64 Python"),
    pytest.mark.timeout(1200),
]


def guest(features: str, *arguments: str) -> list[list[str]]:
    """Run guest.py; what it printed."""
    environment = {
        **os.environ,
        "QEMU_LD_PREFIX": str(ARM64 / "root"),
        "PYTHONHOME": str(ARM64 / "root" / "usr"),
        "PYTHONPATH": f"{ARM64 / 'site'}:{ROOT}",
        "NUMBA_CPU_NAME": "generic",
        "NUMBA_CPU_FEATURES": features,
        "NUMBA_CACHE_DIR": str(ARM64 / "numba"),
    }
    python = ARM64 / "root" / "usr" / "bin" / "python3.11"
    command = [str(QEMU), "-cpu", "max", str(python), str(Path(__file__).with_name("guest.py")), *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_encoders():
    names = ["Q8_0", "Q4_0"]
    assert guest(FEATURES["neon"], "encode", *names) == [["encode", name, "neon"] for name in names]
