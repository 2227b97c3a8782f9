"""``--target``: what is chosen for a device, what its runtime is told, and trials on this machine."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from edgeq.devices.library import BUILT_IN, find
from edgeq.devices.profile import Limit, Profile, with_memory
from edgeq.errors import GateError
from edgeq.plan import KV_BYTES
from edgeq.planning.formats import GGUF_QUANTS, ONNX_BLOCKS, ONNX_QUANTS, formats_of
from edgeq.planning.model import open_model
from edgeq.planning.offload import plan_offload
from edgeq.runtimes import llama_cpp
from edgeq.targeting import trial
from edgeq.targeting.choose import Wish, choose
from edgeq.targeting.settings import isa_of, onnx_settings

ALL = {"gguf": list(GGUF_QUANTS), "onnx": [*ONNX_QUANTS, *ONNX_BLOCKS]}


def chosen(path: Path, profile: Profile, **wish):
    return choose(Wish(path, profile, **wish), ALL)


def test_a_format_that_fits_and_its_settings(llama):
    found = chosen(llama, find("raspberry-pi-5"), to="gguf")
    assert (found.device, found.to, found.kv_type, found.n_gpu_layers) == (
        "raspberry-pi-5",
        "gguf",
        "f16",
        None,
    )
    assert found.predicted["quality"]["value"] <= 0.05
    assert found.llama_cpp_options() == ["-c", str(found.context), "-t", "4"]
    assert found.record()["llama.cpp"] == found.llama_cpp_options()


def test_a_fixed_quant_stays_whatever_it_costs(llama):
    found = chosen(llama, find("rtx-4090"), to="gguf", quant="Q2_K")
    assert found.quant == "Q2_K"
    assert found.n_gpu_layers == 33


def test_little_memory_takes_a_cache_of_8_bits_then_half_the_context(llama):
    device = with_memory(find("raspberry-pi-5"), 64)
    full = chosen(llama, device, to="gguf", quant="Q4_K_S").predicted["memory"]

    def with_less(gb: float):
        limited = Limit(device.apps[0], full["total"] / 1e9 - gb, "a test", "maker")
        return chosen(llama, dataclasses.replace(device, limits=(limited,)), to="gguf", quant="Q4_K_S")

    assert full["cache"] == pytest.approx(0.54e9, rel=0.01)  # 4096 positions of 131,072 bytes
    less, least = with_less(0.1), with_less(0.35)
    assert (less.kv_type, less.context) == ("q8_0", 4096)
    assert less.llama_cpp_options()[-4:] == ["-ctk", "q8_0", "-ctv", "q8_0"]
    assert (least.kv_type, least.context) == ("q8_0", 2048)
    with pytest.raises(GateError, match=r"no format can be had on raspberry-pi-5 \(gguf Q4_K_S: needs"):
        with_less(2.0)


@pytest.mark.parametrize("path", sorted(BUILT_IN.glob("*.toml")), ids=lambda path: path.stem)
def test_every_device_gets_a_format(tinylm, path):
    found = chosen(tinylm, find(path.stem))
    assert found.quant in ALL[found.to]
    assert found.context == 1024


def test_onnx_for_cpus_and_for_cuda(llama):
    arm = chosen(llama, with_memory(find("raspberry-pi-5"), 64), to="onnx", quant="int8")
    assert arm.onnx is not None
    assert (arm.onnx.isa[:4], arm.onnx.reduced_range, arm.onnx.dialect) == ("neon", False, "standard")
    assert arm.session_entries() == {"session.qdqisint8allowed": "1"}
    gpu = chosen(llama, find("h100-sxm"), to="onnx")
    assert gpu.onnx is not None
    assert (gpu.onnx.provider, gpu.onnx.dialect) == ("CUDAExecutionProvider", "cuda")
    assert gpu.quant in ("float16", "int8-blocks")


@pytest.mark.parametrize(
    ("names", "isa", "reduced"),
    [
        (("avx2", "fma"), "avx2", True),
        (("avx2", "avx512f", "avx512vnni"), "avx512-vnni", False),
        (("neon", "dotprod", "i8mm"), "neon-i8mm", False),
        (("neon",), "generic", True),
    ],
)
def test_instruction_sets_decide_about_reduced_range(names, isa, reduced):
    assert isa_of(names) == isa
    profile = dataclasses.replace(find("raspberry-pi-5"), isa=names)
    assert onnx_settings(profile, "", "encoder").reduced_range is reduced


@pytest.mark.parametrize("kv_type", KV_BYTES)
def test_offload_fills_the_gpu_and_no_more(llama, kv_type):
    model = open_model(llama)
    made = next(made for made in formats_of(model, ("Q4_K_M",)) if made.quant == "Q4_K_M")
    kv = KV_BYTES[kv_type]
    layers = [plan_offload(model, made.types, 8192, gb * 1e9, kv).layers for gb in (0.5, 1, 2, 3, 4, 6, 24)]
    assert layers == sorted(layers)
    assert (layers[0], layers[-1]) == (0, 33)
    assert 0 < layers[3] < 33
    for gb in (0.5, 3.0, 24.0):
        part = plan_offload(model, made.types, 8192, gb * 1e9, kv)
        assert part.gpu_bytes <= gb * 1e9
        products = [sum(p.weights for p in side.products) for side in (part.on_gpu, part.on_cpu)]
        assert sum(products) == sum(p.weights for p in model.work(made.types, kv).products)
        assert part.on_gpu.layers + part.on_cpu.layers == 32
    tight = plan_offload(model, made.types, 8192, 3e9, kv)
    more = plan_offload(model, made.types, 8192, tight.gpu_bytes + 1, kv)
    assert more.layers == tight.layers  # one byte more makes no layer more


def test_measured_speeds_decide_among_the_near_ones(llama):
    asked = []

    def tried(model, quants):
        asked.append(list(quants))
        return {quant: trial.Speed(20.0 if quant == "Q4_K_S" else 10.0, 0.1) for quant in quants}

    found = chosen(llama, with_memory(find("ryzen-9-7950x"), 64), to="gguf", tried=tried)
    assert 2 <= len(asked[0]) <= trial.MOST
    assert "Q4_K_S" in asked[0]
    assert found.quant == "Q4_K_S"
    assert found.measured["Q4_K_S"] == 20.0
    assert found.reason.startswith("measured here: 20.0 tokens/s")


@pytest.mark.parametrize(("slower", "error", "same"), [(0.019, 0, True), (0.025, 0, False), (0.025, 2, True)])
def test_formats_are_as_fast_as_the_rounds_can_tell(slower, error, same):
    speeds = {"Q4_0": trial.Speed(100.0, error), "Q4_K_M": trial.Speed(100 * (1 - slower), error)}
    far = {"Q8_0": trial.Speed(90.0, 50.0)}  # however much the rounds differ
    assert trial.as_fast(speeds | far) == (["Q4_0", "Q4_K_M"] if same else ["Q4_0"])


@pytest.mark.skipif(not llama_cpp.available(), reason="llama_cpp is not installed")
def test_a_trial_runs_files_of_zeros(tinylm, monkeypatch):
    speeds = trial.measured_speeds(tinylm, ["Q8_0", "Q4_0"], engine="llama.cpp", threads=1, seconds=0)
    assert set(speeds) == {"Q8_0", "Q4_0"}
    assert min(speeds.values()).tokens_per_second > 1
    assert min(speed.error for speed in speeds.values()) > 0
    monkeypatch.setattr(trial, "_MOST_BYTES", 1000)
    assert trial.measured_speeds(tinylm, ["Q8_0"], engine="llama.cpp", threads=1) == {}
