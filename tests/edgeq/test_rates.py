"""Rates from models of zeros: predictions give back what these took, and engines run them."""

from __future__ import annotations

import dataclasses

import pytest

from edgeq.bench import rates as measuring
from edgeq.bench.rates import FLOATS, Took, made_samples, measured_rates, rates_of
from edgeq.devices.host import host_facts, profile_of
from edgeq.devices.machine import Machine, cpu_of
from edgeq.devices.measure import Roofs, with_measured
from edgeq.devices.predict import decode_seconds, prefill_seconds

ROOFS = Roofs(2, 10.0, 100.0, 50.0)
DECODE, PREFILL = {"Q4_K": 8.0, "Q8_0": 6.0, FLOATS: 4.0}, {"Q4_K": 90.0, "Q8_0": 70.0, FLOATS: 60.0}
ROW, MANY = {"Q4_K": 0.0, "Q8_0": 9e-9, FLOATS: 12e-9}, {"Q4_K": 7e-9, "Q8_0": 8e-9, FLOATS: 6e-9}


@pytest.mark.parametrize("engine", ["llama.cpp", "edgeq"])
def test_predictions_give_back_what_the_models_took(engine, tmp_path, monkeypatch):
    monkeypatch.setattr(measuring, "write_zeros", lambda *file: None)
    machine = Machine("CPU", 2, 10.0, DECODE, PREFILL, 3e-5, 8.0, True, ROW, MANY)
    samples = made_samples(tmp_path, tuple(DECODE), ("avx2",), 2_000_000)
    assert list(samples.narrow) == list(DECODE)
    depth, prompt = measuring._DEPTH, measuring._PROMPT
    took = {
        sample.path: Took(
            decode_seconds(sample.work, machine, depth), prefill_seconds(sample.work, machine, prompt)
        )
        for sample in samples.all
    }
    found = rates_of(engine, ROOFS, samples, took)
    assert found.layer_us == pytest.approx(30, abs=0.1)
    assert found.decode == pytest.approx(DECODE, rel=0.005)
    assert found.prefill == pytest.approx(PREFILL, rel=0.03)
    assert found.row_ns == pytest.approx({name: 1e9 * row for name, row in ROW.items()}, abs=0.1)
    host = dataclasses.replace(profile_of(host_facts()), threads=2)
    again = cpu_of(with_measured(host, ROOFS, (found,)), 2, engine)
    again = dataclasses.replace(again, read_gbs=10.0)
    for sample in samples.all:
        now = Took(decode_seconds(sample.work, again, depth), prefill_seconds(sample.work, again, prompt))
        assert now == pytest.approx(took[sample.path], rel=0.01)


def test_a_disturbed_model_makes_no_rates_below_zero(tmp_path, monkeypatch):
    monkeypatch.setattr(measuring, "write_zeros", lambda *file: None)
    samples = made_samples(tmp_path, tuple(DECODE), ("avx2",), 2_000_000)
    took = {sample.path: Took(1e-3, 1e-2) for sample in samples.all}
    took[samples.narrow["Q4_K"].path] = Took(1.0, 0.01)
    found = rates_of("edgeq", ROOFS, samples, took)
    assert min(*found.decode.values(), *found.prefill.values()) > 0


def test_types_take_the_rows_of_their_group(tmp_path, monkeypatch):
    monkeypatch.setattr(measuring, "write_zeros", lambda *file: None)
    samples = made_samples(tmp_path, ("Q4_K", "Q8_0", "Q4_0", "Q6_K", FLOATS), ("avx2",), 1000)
    assert list(samples.narrow) == ["Q4_K", "Q8_0", FLOATS]  # llama.cpp repacks the first
    assert samples.group == {"Q4_K": "Q4_K", "Q4_0": "Q4_K", "Q8_0": "Q8_0", "Q6_K": "Q8_0", FLOATS: FLOATS}
    assert min(sample.work.layers for sample in samples.all) == 2


def test_our_engine_is_measured(monkeypatch):
    monkeypatch.setattr(measuring, "_ROUNDS", 1)
    monkeypatch.setattr(measuring, "_LEAST_BYTES", 1_000_000)
    monkeypatch.setattr(
        measuring, "_WIDE", {**measuring._NARROW, "hidden_size": 1024, "intermediate_size": 1024}
    )
    seen = []
    roofs = dataclasses.replace(ROOFS, threads=1)
    told = lambda stage, done, total: seen.append((done, total))  # noqa: E731
    (found,) = measured_rates({"embedded": "edgeq"}, roofs, ["Q8_0"], (), 0, told)
    assert seen[0] == (0, 4)
    assert seen[-1] == (4, 4)
    assert (found.engine, found.threads) == ("edgeq", 1)
    assert min(*found.decode.values(), *found.prefill.values()) > 0.01
    assert found.decode.keys() == found.row_ns.keys() == {"Q8_0", FLOATS}
