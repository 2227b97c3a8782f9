"""Names and options that make no sense: one line, nothing left behind."""

from __future__ import annotations

import pytest
from bad_input import BOTH


def test_hub_without_a_network(refused, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    line = refused("export", "nobody/absent", "--to", "gguf", "-q", "F16", names="nobody/absent", below=10)
    assert "network" in line


@pytest.mark.parametrize(
    "error", [TimeoutError(110, "timed out"), RuntimeError("x"), OSError(28, "No space left on device")]
)
def test_hub_download_that_breaks(refused, monkeypatch, error):
    def broken(*arguments: object, **options: object) -> None:
        raise error

    monkeypatch.setattr("huggingface_hub.snapshot_download", broken)
    refused("export", "nobody/absent", "--to", "gguf", "-q", "F16", names="nobody/absent")


@pytest.mark.parametrize(
    "name", ["absent", "./absent", "a/b/c", "a/b--c", "a/..", "a" * 300, "a\nb", "", "a/" + "b" * 300]
)
def test_names_of_no_model(refused, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    refused("export", name, "--to", "gguf", "-q", "F16", names=" ".join(name.split())[:50])


@BOTH
def test_unknown_quant(refused, tinylm, tmp_path, to, quant):
    line = refused(
        "export", tinylm, "--to", to, "-q", "Q4_QM", "-o", tmp_path / "out", names="--quant Q4_QM", code=2
    )
    assert quant in line  # the list of those there are


@pytest.mark.parametrize(
    "options",
    [("--percentile", 99.9), ("--percentile", "nan", "--to", "onnx", "-q", "int8"), ("--full-range",),
     ("--percentile", 200, "--to", "onnx", "-q", "int8"), ("--effort", "best", "--to", "onnx", "-q", "int8"),
     ("--imatrix", "x.gguf", "--to", "onnx", "-q", "int8"),
     ("--tensor-type", "x=Q8_0", "--to", "onnx", "-q", "int8"), ("--tensor-type", "ffn_down=Q9")],
    ids=str,
)  # fmt: skip
def test_options_that_do_not_go_together(refused, tinylm, tmp_path, options):
    command = ("export", tinylm, "--to", "gguf", "-q", "F16", "-o", tmp_path / "out", *options)
    refused(*command, names=options[0], code=2)


def test_wrong_engine(refused, exported, tinylm):
    for model, engine in (
        (exported.gguf, "onnxruntime"),
        (exported.onnx, "llama.cpp"),
        (exported.onnx, "embedded"),
        (tinylm, "llama.cpp"),
    ):
        refused("run", model, "-p", "hi", "--engine", engine, names=f"--engine {engine}", code=2)


def test_llama_cpp_is_not_installed(refused, exported, monkeypatch):
    monkeypatch.setattr("edgeq.runtimes.llama_cpp.available", lambda: False)
    refused("run", exported.gguf, "-p", "hi", "--engine", "llama.cpp", names="edgeq[llama]")


@pytest.mark.parametrize(
    "options",
    [("run", "m"), ("export", "m", "--to", "gguf"), ("export", "m", "--to", "tflite", "-q", "F16"), ("frobnicate",),
     ("run", "m", "-p", "hi", "-n", 0), ("run", "m", "-p", "hi", "-n", "x"), ("run", "m", "-p", "hi", "--seed", -1),
     ("run", "m", "-p", "hi", "--temp", -1), ("run", "m", "-p", "hi", "--top-p", 2), ("inspect",), ("--frob",),
     ("run", "m", "-p", "hi", "--temp", "nan"), ("run", "m", "-p", "hi", "--top-p", "nan"),
     ("run", "m", "-p", "hi", "--top-p", 0), ("plan", "m", "--most-loss", "nan"), ("plan", "m", "--memory", "inf"),
     ("gate", "m", "--tolerance", "nan"), ("quantize", "m.gguf", "-q", "Q8_0", "-o", "m.onnx"),
     ("quantize", "m.onnx", "--max-kl", "nan")],
    ids=str,
)  # fmt: skip
def test_usage(edgeq, options):
    done = edgeq(*options)
    assert (done.code, done.out) == (2, "")
    assert "Traceback" not in done.err


def test_encoder_generates_nothing(refused, edgeq, minilm, tmp_path):
    refused("run", minilm, "-p", "hi", names=minilm)
    out = tmp_path / "out"
    for to, quant, name in (("gguf", "F16", "model-F16.gguf"), ("onnx", "float32", "model.onnx")):
        assert edgeq("export", minilm, "--to", to, "-q", quant, "-o", out, "--no-proof").code == 0
        refused("run", out / name, "-p", "hi", names=out / name)


@pytest.mark.parametrize(("prompt", "said"), [("", "empty"), ("a\udcff", "UTF-8"), ("\ud83d", "UTF-8")])
def test_prompt(refused, tinylm, prompt, said):
    assert said in refused("run", tinylm, "-p", prompt, names="--prompt")
