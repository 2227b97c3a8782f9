"""``--target`` as a user sees it: what is written and recorded, and options that do not go together."""

from __future__ import annotations

import json

import pytest

from edgeq.devices.library import BUILT_IN
from edgeq.onnx.sessions import PROVIDER, open_session, read_config
from edgeq.runtimes.onnxruntime import CPU
from edgeq.targeting import trial


@pytest.fixture(autouse=True)
def own_folder(monkeypatch: pytest.MonkeyPatch, tmp_path):
    monkeypatch.setenv("EDGEQ_DEVICES", str(tmp_path / "mine"))


def test_export_makes_what_the_plan_chooses(edgeq, tinylm, tmp_path):
    out = tmp_path / "out"
    done = edgeq("export", tinylm, "--target", "rtx-4090", "--to", "onnx", "-o", out, "--no-proof", "--json")
    assert done.code == 0, done.err
    assert "--target rtx-4090: onnx float16" in done.err
    assert "runs it in CUDAExecutionProvider" in done.err
    record = json.loads((out / "edgeq.json").read_text())["exports"][0]
    assert record["quant"] == "float16"
    assert record["target"]["onnx"]["provider"] == "CUDAExecutionProvider"
    assert any("has kernels for all of the graph" in note for note in record["notes"])
    path = out / "model_fp16.onnx"
    assert read_config(path)[PROVIDER] == "CUDAExecutionProvider"
    said = f"edgeq: {path}: CUDAExecutionProvider is not there; it runs on the CPU\n"
    assert said in edgeq("run", path, "-p", "x", "-n", 2).err
    assert said in edgeq("bench", path, "--prompt", 4, "--gen", 1, "--repeat", 1).err
    assert open_session(path, 1, [CPU]).runtime.get_providers() == [CPU]
    done = edgeq("export", tinylm, "--to", "onnx", "-q", "float16", "-o", out, "--no-proof", "--force")
    assert done.code == 0, done.err
    assert read_config(path) == {}  # nothing is left of the file that was there


def test_quantize_for_a_phone(edgeq, floats, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    options = ("--target", "iphone-15-pro", "--context", 256, "--dry-run", "--json")
    done = edgeq("quantize", floats.gguf, "-o", out, *options)
    assert done.code == 0, done.err
    assert f"gguf {json.loads(done.out)['quant']}" in done.err
    assert "llama.cpp runs it with -c 256 -t " in done.err


def test_this_machine_is_measured_once_and_tried(edgeq, tinylm, tmp_path, monkeypatch):
    """The measuring and the trial themselves have tests of their own; here a measured profile lies there."""
    folder = tmp_path / "mine"
    folder.mkdir()
    text = (BUILT_IN / "galaxy-s23.toml").read_text()  # one with rates
    (folder / "this.toml").write_text(
        text.replace("[memory]", '[memory]\nread_gbs = 20.0\nread_source = "rates"')
    )
    tried = []

    def speeds(model, quants, *, engine, threads):
        tried.extend(quants)
        return dict.fromkeys(quants, trial.Speed(50.0, 1.0))

    monkeypatch.setattr(trial, "measured_speeds", speeds)
    done = edgeq("quantize", tinylm, "-o", tmp_path, "--target", "this", "--dry-run", "--json")
    assert done.code == 0, done.err
    assert 2 <= len(tried) <= trial.MOST
    assert "measured here: 50.0 tokens/s" in done.err
    assert "measuring this machine" not in done.err


@pytest.mark.parametrize(
    ("command", "options", "said"),
    [
        ("export", (), "give --to and --quant, or --target"),
        ("export", ("--context", 512, "--to", "gguf", "-q", "Q8_0"), "go with --target"),
        ("export", ("--target", "pi5", "-q", "Q8_0"), "--quant goes with --to"),
        ("quantize", (), "or --target DEVICE"),
        ("quantize", ("--most-loss", 0.1, "-q", "Q8_0"), "go with --target"),
    ],
)
def test_options_that_do_not_go_together(edgeq, tinylm, tmp_path, command, options, said):
    done = edgeq(command, tinylm, "-o", tmp_path / "o.gguf", *options)
    assert (done.code, done.out, len(done.err.splitlines())) == (2, "", 1), done.err
    assert said in done.err


def test_a_device_that_holds_nothing(edgeq, tmp_path):
    """Every command that asks for a device says so alike."""
    config = {"model_type": "llama", "hidden_size": 8192, "intermediate_size": 28672, "num_hidden_layers": 16,
              "num_attention_heads": 64, "num_key_value_heads": 8, "vocab_size": 128256,
              "max_position_embeddings": 512}  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config))
    said = f"edgeq: error: {tmp_path}: no format can be had on iphone-15 (gguf "
    asked = ("--target", "iphone-15")
    out = ("-o", tmp_path / "out")
    for command, more in (("export", out), ("plan", ()), ("plan", ("--json",))):
        done = edgeq(command, tmp_path, *asked, *more)
        assert (done.code, len(done.err.splitlines())) == (3, 1), done.err
        assert done.err.startswith(said)
        assert "take a smaller model" in done.err
        if command == "plan":
            assert "none" in done.out if not more else json.loads(done.out)["choice"] is None


def test_limits_that_no_format_keeps(edgeq, tinylm):
    done = edgeq("plan", tinylm, "--target", "pi5", "--least-speed", "1e9")
    assert done.code == 3
    assert "); ask for less quality or speed, or take another device" in done.err
