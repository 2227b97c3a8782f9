"""Measuring this machine: the figures are of the right kind, and a profile keeps them."""

from __future__ import annotations

import pytest

from edgeq.devices import measure as measuring
from edgeq.devices.host import host_facts, profile_of
from edgeq.devices.machine import cpu_of
from edgeq.devices.profile import Rates, read_profile
from edgeq.devices.to_toml import profile_toml
from edgeq.kernels_cpu import threads


def test_a_measured_profile(monkeypatch, tmp_path):
    monkeypatch.setattr(measuring, "_SECONDS", 0.02)
    before = threads.get_threads()
    found = measuring.measure(1)
    assert threads.get_threads() == before
    assert found.threads == 1
    assert min(found.read_gbs, found.int8_gops, found.float_gops) > 0.1
    rates = Rates(
        "edgeq", 1, {"Q8_0": 2000.0}, {"Q8_0": 90.5}, "measured", 12.5, {"Q8_0": 8.0}, {"Q8_0": 3.5}
    )
    path = tmp_path / "mine.toml"
    path.write_text(profile_toml(measuring.with_measured(profile_of(host_facts()), found, (rates,))))
    profile = read_profile(path)
    assert profile.threads == 1
    assert profile.rates == (rates,)
    machine = cpu_of(profile, engine="edgeq")
    assert machine.read_gbs == 2125  # a model read that fast: 34 bytes of 32 weights
    assert (machine.decode["Q8_0"], machine.prefill["Q8_0"]) == (2000, 90.5)
    assert machine.waiting == pytest.approx(12.5e-6)
    assert machine.row_seconds["Q8_0"] == pytest.approx(8e-9)
    assert machine.many_row_seconds["Q8_0"] == pytest.approx(3.5e-9)
    assert machine.measured
