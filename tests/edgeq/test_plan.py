"""The plan: exact sizes, every family, files of every kind, and the time a plan from a config takes."""

from __future__ import annotations

import dataclasses
import json
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from llama_8b import LLAMA_8B
from oracle import encoders, models

from edgeq.devices.library import find
from edgeq.devices.profile import Limit
from edgeq.errors import EdgeqError, UsageError
from edgeq.formats.blocks import by_name
from edgeq.formats.gguf.mix_table import FILE_TYPES
from edgeq.plan import Request, run
from edgeq.planning.formats import GGUF_QUANTS, ONNX_BLOCKS, ONNX_QUANTS, formats_of
from edgeq.planning.model import open_model
from edgeq.quantize import Request as Quantize
from edgeq.quantize import run as quantize

SECONDS = 1.0


def planned(path: Path, device: str = "raspberry-pi-5", **options) -> dict:
    return run(Request(path, find(device), **options))


@pytest.fixture
def no_encoding(monkeypatch: pytest.MonkeyPatch):
    """Blocks of zeros in place of encoded ones: a file of them is as large, and no encoder is compiled."""

    def zeros(name: str, values: np.ndarray, *options: object) -> np.ndarray:
        return np.zeros((len(values), by_name(name).row_bytes(values.shape[1])), np.uint8)

    monkeypatch.setattr("edgeq.kernels_cpu.encode.encode", zeros)


@pytest.mark.parametrize("quant", FILE_TYPES)
def test_the_size_is_that_of_the_file(tinylm, no_encoding, tmp_path, quant):
    """Of a model directory, tokenizer and all, to the byte."""
    (made,) = (m for m in formats_of(open_model(tinylm), (quant,)) if m.target == "gguf")
    quantize(Quantize(tinylm, tmp_path / "out.gguf", quant))
    assert made.exact
    assert made.file_bytes == (tmp_path / "out.gguf").stat().st_size


def test_the_size_from_a_gguf_file(tinylm, no_encoding, tmp_path):
    source, out = tmp_path / "model-F16.gguf", tmp_path / "out.gguf"
    quantize(Quantize(tinylm, source, "F16"))
    quantize(Quantize(source, out, "Q4_K_M"))
    (made,) = (m for m in formats_of(open_model(source), ("Q4_K_M",)) if not m.stored)
    assert made.file_bytes == out.stat().st_size


def test_the_size_of_an_onnx_file_is_near(minilm, make_onnx):
    made = {m.quant: m.file_bytes for m in formats_of(open_model(minilm)) if m.target == "onnx"}
    size = sum(file.stat().st_size for file in make_onnx(minilm, "float32").parent.glob("model*"))
    assert made["float32"] == pytest.approx(size, rel=0.02)
    assert made["int8"] == pytest.approx(23.6e6, rel=0.02)  # what an export of it has


def test_a_config_knows_the_tensors(llama):
    """8.03 billion parameters; llama.cpp's Q4_K_M of them has 4.58 GiB, its Q8_0 7.95."""
    model = open_model(llama)
    assert model.parameters == 8_030_261_248
    sizes = {m.quant: m.file_bytes / 2**30 for m in formats_of(model)}
    assert sizes["Q4_K_M"] == pytest.approx(4.58, abs=0.01)
    assert sizes["Q8_0"] == pytest.approx(7.95, abs=0.01)


@pytest.mark.parametrize("name", models.MODELS)
def test_every_family(name, tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(models.MODELS[name]))
    record = planned(path, context=256)
    assert record["choice"]
    assert record["model"]["kind"] == "decoder"
    assert len(record["formats"]) == len(GGUF_QUANTS) + len(ONNX_QUANTS) + len(ONNX_BLOCKS)
    for row in record["formats"]:
        assert row["memory"]["total"] > row["file_bytes"] * 0.5
        assert (
            row["speed"]["decode"]["tokens_per_second"]
            > row["speed"]["decode_full_context"]["tokens_per_second"]
        )
        assert row["reason"]


@pytest.mark.parametrize("name", models.MODELS)
def test_a_config_has_the_tensors_of_the_checkpoint(name, tmp_path):
    """Optional ones too, which a config asks for in words of its own."""
    folder = tmp_path / "model"
    folder.mkdir()
    models.write_checkpoint(folder, name, models.stored_shapes()[name])
    alone = tmp_path / "config.json"
    alone.write_text((folder / "config.json").read_text())
    assert dict(open_model(alone).tensors) == dict(open_model(folder).tensors)


@pytest.mark.parametrize("name", encoders.MODELS)
def test_every_encoder(name, tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(encoders.MODELS[name]))
    record = planned(path, "n100", context=64)
    assert record["model"]["kind"] == "encoder"
    assert record["choice"]
    assert all("decode" not in row["speed"] and row["reason"] for row in record["formats"])


def test_an_encoder(minilm):
    record = planned(minilm, "n100")
    assert record["model"]["kind"] == "encoder"
    assert "decode" not in record["formats"][0]["speed"]
    assert record["choice"] == "onnx int8"


def test_experts_are_read_in_part(tmp_path):
    path = tmp_path / "config.json"
    config = LLAMA_8B | {"model_type": "mixtral", "num_local_experts": 8, "num_experts_per_tok": 2}
    path.write_text(json.dumps(config))
    dense = tmp_path / "dense.json"
    dense.write_text(json.dumps(LLAMA_8B))
    experts, plain = planned(path, "epyc-9654"), planned(dense, "epyc-9654")
    speeds = [
        next(r for r in record["formats"] if r["quant"] == "Q4_K_M")["speed"]["decode"]["tokens_per_second"]
        for record in (experts, plain)
    ]
    sizes = [
        next(r for r in record["formats"] if r["quant"] == "Q4_K_M")["file_bytes"]
        for record in (experts, plain)
    ]
    assert sizes[0] > 5 * sizes[1]
    assert speeds[0] > 0.4 * speeds[1]


def test_a_window_needs_less_cache(tmp_path):
    config = json.loads(json.dumps(models.MODELS["gemma3"])) | {"max_position_embeddings": 8192}
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config))
    model = open_model(path)
    assert {group.window > 0 for group in model.cached} == {True, False}


def test_the_limit_of_memory_rejects(llama):
    record = planned(llama, "iphone-13-pro")
    assert record["choice"] is None
    assert all("GB of memory" in row["reason"] for row in record["formats"] if row["quant"] != "float16")
    box = dataclasses.replace(find("epyc-9654"), limits=(Limit("server", 6.5, "a control group", "maker"),))
    small = run(Request(llama, box))
    assert small["choice"]
    assert small["limit"]["why"] == "6.5 GB seen under a control group"


def test_a_gpu_is_used_where_there_is_one(llama):
    gpu, cpu = planned(llama, "apple-m2-max"), planned(llama, "apple-m2-max", unit="cpu")
    assert "metal" in gpu["formats"][0]["unit"]
    assert cpu["formats"][0]["unit"] == "CPU"
    assert {r["unit"] for r in gpu["formats"] if r["format"] == "onnx"} == {"CPU"}
    assert planned(llama, "rtx-3060")["formats"][0]["speed"]["prefill"]["tokens_per_second"] > 500


def test_float16_in_onnx_is_for_gpus(llama):
    formats = planned(llama, "epyc-9654")["formats"]
    row = next(row for row in formats if (row["format"], row["quant"]) == ("onnx", "float16"))
    assert "computes float16 in float32" in row["reason"]
    on_gpu = planned(llama, "h100-sxm")["formats"]
    reasons = {row["quant"]: row["reason"] for row in on_gpu if row["format"] == "onnx"}
    assert "DynamicQuantizeLinear" in reasons["int8-dynamic"]
    assert "on a CPU" not in reasons["float16"]
    assert all((row["n_gpu_layers"] == 33) == (row["format"] == "gguf") for row in on_gpu)


def test_a_gpu_with_a_host_holds_what_it_can(llama):
    """Both parts' seconds add up, so it is slower than the GPU and faster than the CPU."""
    card = dataclasses.replace(find("rtx-3060").gpus[0], gb=4)
    host = dataclasses.replace(find("ryzen-9-7950x"), gpus=(card,))
    (row,) = run(Request(llama, host, quants={"gguf": ["Q4_K_M"]}))["formats"]
    assert 0 < row["n_gpu_layers"] < 33
    assert row["unit"].endswith("and CPU")
    (cpu,) = run(Request(llama, host, unit="cpu", quants={"gguf": ["Q4_K_M"]}))["formats"]
    whole = dataclasses.replace(host, gpus=(dataclasses.replace(card, gb=12),))
    (gpu,) = run(Request(llama, whole, quants={"gguf": ["Q4_K_M"]}))["formats"]
    speeds = [one["speed"]["decode"]["tokens_per_second"] for one in (cpu, row, gpu)]
    assert speeds == sorted(speeds)
    assert row["place"] == 1
    assert gpu["n_gpu_layers"] == 33


def test_the_model_s_own_quality_goes_before_the_typical(tinylm, tmp_path):
    path = tmp_path / "edgeq.json"
    proof = {"kl_mean": 0.2, "text": "held-out code"}
    path.write_text(json.dumps({"exports": [{"format": "gguf", "quant": "Q4_K_M", "proof": proof}]}))
    record = planned(tinylm, evaluation=path)
    row = next(r for r in record["formats"] if r["quant"] == "Q4_K_M")
    assert row["quality"] == {"value": 0.2, "measured": True, "source": "measured on held-out code"}
    assert row["reason"] == "KL 0.2 is more than 0.05"


def test_files_as_they_are(tinylm, minilm, no_encoding, make_onnx, tmp_path):
    path = tmp_path / "model.gguf"
    quantize(Quantize(tinylm, path, "Q4_K_M"))
    (stored,) = (row for row in planned(path)["formats"] if row["stored"])
    assert (stored["quant"], stored["file_bytes"]) == ("Q4_K_M", path.stat().st_size)
    (row,) = planned(make_onnx(minilm, "float32"))["formats"]
    assert (row["format"], row["quant"], row["stored"]) == ("onnx", "float32", True)


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({"app": "ios"}, "--app ios"),
        ({"context": 10**6}, "--context 1000000"),
        ({"unit": "gpu"}, "--unit gpu"),
        ({"evaluation": Path("absent.json")}, "absent.json"),
    ],
)
def test_options_that_cannot_be(llama, options, names):
    with pytest.raises(EdgeqError, match=names):
        planned(llama, **options)


def test_a_usage_error_has_its_code(llama):
    with pytest.raises(UsageError):
        planned(llama, app="ios")


@pytest.mark.parametrize(
    "content", ["[]", "{", '{"model_type": "resnet"}', '{"model_type": "llama", "hidden_size": 0}']
)
def test_broken_configs(tmp_path, content):
    path = tmp_path / "config.json"
    path.write_text(content)
    with pytest.raises(EdgeqError, match=r"config\.json"):
        planned(path)


def test_a_plan_from_a_config_is_quick(llama):
    """Best of three, in processor time, which other work does not lengthen as it does a clock's."""
    seconds = []
    command = [sys.executable, "-m", "edgeq", "plan", str(llama), "--target", "raspberry-pi-5", "--json"]
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(command, capture_output=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        assert json.loads(done.stdout)["choice"]
    assert min(seconds) <= SECONDS
