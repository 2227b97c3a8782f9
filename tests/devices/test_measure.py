"""Measuring this machine: the figures are of the right kind, and a profile keeps them."""

from __future__ import annotations

import pytest

from edgeq.devices import measure as measuring
from edgeq.devices.host import host_facts, profile_of
from edgeq.devices.machine import cpu_of
from edgeq.devices.profile import read_profile
from edgeq.devices.to_toml import profile_toml
from edgeq.formats.blocks import by_name
from edgeq.kernels_cpu import threads


def test_a_measured_profile(monkeypatch, tmp_path):
    monkeypatch.setattr(measuring, "TYPES", ("Q8_0",))
    monkeypatch.setattr(measuring, "_SECONDS", 0.02)
    monkeypatch.setattr(measuring, "_TURNS", 2)
    before, seen = threads.get_threads(), []
    found = measuring.measure(1, lambda stage, done, total: seen.append((done, total)))
    assert threads.get_threads() == before
    assert seen == [(0, 2), (1, 2), (2, 2)]
    assert found.threads == 1
    assert min(found.read_gbs, found.int8_gops, found.float_gops) > 0.1
    assert found.rates.decode["Q8_0"] > 0.05
    assert found.rates.prefill["Q8_0"] > 0.5
    path = tmp_path / "mine.toml"
    path.write_text(profile_toml(measuring.with_measured(profile_of(host_facts()), found)))
    profile = read_profile(path)
    assert profile.threads == 1
    assert profile.memory.read_gbs == pytest.approx(found.read_gbs, abs=0.06)
    assert cpu_of(profile, engine="edgeq").decode["Q8_0"] == found.rates.decode["Q8_0"]
    assert cpu_of(profile, engine="edgeq").measured


def test_rows_of_any_bytes_have_the_type_s_size():
    assert measuring.any_rows("Q4_K", 3).shape == (3, by_name("Q4_K").row_bytes(measuring.COLUMNS))
