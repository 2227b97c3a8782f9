"""What an export asks about this machine's CPU."""

import platform

import pytest

from edgeq.devices import cpu


@pytest.mark.parametrize(
    ("machine", "features", "saturates"),
    [
        ("x86_64", {"avx2", "fma"}, True),
        ("AMD64", {"avx2", "avxvnni"}, False),
        ("x86_64", {"avx512f", "avx512vnni"}, False),
        ("aarch64", {"neon"}, False),
    ],
)
def test_saturation(monkeypatch: pytest.MonkeyPatch, machine: str, features: set[str], saturates: bool):
    """ONNX Runtime looks at the host, so what Numba compiles for does not count."""
    monkeypatch.setattr(platform, "machine", lambda: machine)
    monkeypatch.setattr(cpu, "host_features", lambda: frozenset(features))
    assert cpu.saturates_int8() is saturates


def test_there_is_a_core_to_run_on():
    assert cpu.usable_cores() >= 1
