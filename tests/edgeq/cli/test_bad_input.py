"""What a user gets wrong, case by case: one line that names the file, exit code 1, nothing left behind."""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from edgeq.cli import main
from edgeq.formats import atomic
from edgeq.formats.gguf.writer import GGUFWriter

EXPORTS = (("gguf", "Q4_0"), ("onnx", "int8"))
BOTH = pytest.mark.parametrize(("to", "quant"), EXPORTS)


@pytest.fixture
def model(tinylm, tmp_path) -> Path:
    """A copy of TinyLM to damage: small files copied, the weights linked."""
    folder = tmp_path / "tinylm"
    folder.mkdir()
    for file in tinylm.iterdir():
        if file.suffix == ".safetensors":
            (folder / file.name).symlink_to(file)
        else:
            (folder / file.name).write_bytes(file.read_bytes())
    return folder


@pytest.fixture
def refused(edgeq, tmp_path):
    """Run a command that must fail with one line; the folder it ran in must stay as it was."""

    def check(*arguments: object, names: object, code: int = 1, below: float = 30) -> str:
        before = _listing(tmp_path)
        started = time.monotonic()
        done = edgeq(*arguments)
        assert time.monotonic() - started < below
        assert done.out == ""
        _is_one_line(done.err)
        assert str(names) in done.err
        assert done.code == code, done.err
        assert _listing(tmp_path) == before
        return done.err

    return check


def _is_one_line(err: str) -> None:
    assert err.startswith("edgeq: error: "), err
    assert err.count("\n") == 1, err
    assert err.endswith("\n")
    assert len(err) < 1000
    assert "Traceback" not in err


def _listing(folder: Path) -> dict[str, tuple[int, int]]:
    """Every file below a folder with its size and time of change, hidden ones too."""
    found = {}
    for path in folder.rglob("*"):
        status = path.lstat()
        found[str(path)] = (status.st_size, status.st_mtime_ns) if path.is_file() else (0, 0)
    return found


def _edit(file: Path, **changes: Any) -> None:
    """Change fields of a JSON file; None removes one."""
    value = json.loads(file.read_text("utf-8")) | changes
    file.write_text(json.dumps({k: v for k, v in value.items() if v is not None}), "utf-8")


def _weights(model: Path, change) -> None:
    """Rewrite the weights as ``change`` leaves the dictionary of tensors."""
    file = model / "model.safetensors"
    tensors = dict(load_file(file))
    change(tensors)
    file.unlink()
    save_file(tensors, file)


# Checkpoints.


@BOTH
def test_truncated_safetensors(refused, model, to, quant):
    file = model / "model.safetensors"
    content = file.read_bytes()
    file.unlink()
    file.write_bytes(content[:-1000])
    line = refused("export", model, "--to", to, "-q", quant, "-o", model / "out", names=file)
    assert "truncated" in line


def test_missing_weights(refused, model):
    (model / "model.safetensors").unlink()
    refused("export", model, "--to", "gguf", "-q", "F16", "-o", model / "out", names=model)
    refused("inspect", model, names=model)
    refused("run", model, "-p", "hi", names=model)


@pytest.mark.parametrize("cut", [None, 4, 5000])
def test_missing_or_truncated_shard(refused, model, cut):
    tensors = load_file(model / "model.safetensors")
    (model / "model.safetensors").unlink()
    names = sorted(tensors)
    shards = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for shard, part in shards.items():
        save_file({name: tensors[name] for name in part}, model / shard)
    index = {"weight_map": {name: shard for shard, part in shards.items() for name in part}}
    (model / "model.safetensors.index.json").write_text(json.dumps(index))
    last = model / list(shards)[1]
    if cut is None:
        last.unlink()
    else:
        last.write_bytes(last.read_bytes()[:cut])
    refused("export", model, "--to", "gguf", "-q", "F16", "-o", model / "out", names=last.name)


@pytest.mark.parametrize(
    ("model_type", "nearest"),
    [
        (None, ""),
        ("llamma", "nearest: llama"),
        ("qwen2_5", "nearest: qwen2"),
        ("t5", "edgeq[optimum]"),
        (["llama"], ""),
        (7, ""),
    ],
)
def test_model_type(refused, model, model_type, nearest):
    _edit(model / "config.json", model_type=model_type)
    line = refused(
        "export", model, "--to", "gguf", "-q", "F16", "-o", model / "out", names=model / "config.json"
    )
    assert nearest in line
    assert "bert, gemma2, gemma3, gemma3_text, gpt2, granite, llama, mistral, mixtral" in line


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", '{"model_type": "llama"', "[" * 100_000, "\xff", "9" * 5000]
)
def test_config_that_is_no_json_object(refused, model, text):
    (model / "config.json").write_text(text, "latin-1")
    refused("export", model, "--to", "gguf", "-q", "F16", "-o", model / "out", names=model / "config.json")


def test_no_config(refused, model):
    (model / "config.json").unlink()
    refused("export", model, "--to", "gguf", "-q", "F16", "-o", model / "out", names="config.json")


@pytest.mark.parametrize("value", ["6", -1, 0, 2.5, True, [6], {}, 10**9, 2**31, 2**63, 10**400])
@pytest.mark.parametrize("key", ["num_hidden_layers", "hidden_size", "num_attention_heads", "vocab_size"])
def test_config_values_that_cannot_be(refused, model, key, value):
    _edit(model / "config.json", **{key: value}, head_dim=None)
    refused("export", model, "--to", "gguf", "-q", "F16", "-o", model / "out", names=model, below=5)


@pytest.mark.parametrize("value", ["x", -1.0, 0, float("inf"), float("nan"), True, [1], 10**400])
@pytest.mark.parametrize("key", ["rms_norm_eps", "rope_theta"])
def test_config_numbers_that_cannot_be(refused, model, key, value):
    _edit(model / "config.json", **{key: value})
    refused("export", model, "--to", "gguf", "-q", "F16", "-o", model / "out", names=key)


@pytest.mark.parametrize(
    "scaling",
    ["linear", [1], 3, {"rope_type": "yarn"}, {"rope_type": ["linear"]}, {"rope_type": "linear"},
     {"rope_type": "linear", "factor": "2"}, {"rope_type": "linear", "factor": 10**400},
     {"rope_type": "llama3", "factor": 8, "low_freq_factor": 4, "high_freq_factor": 1,
      "original_max_position_embeddings": 8192}],
)  # fmt: skip
def test_rope_scaling_that_cannot_be(refused, model, scaling):
    _edit(model / "config.json", rope_scaling=scaling)
    refused("export", model, "--to", "gguf", "-q", "F16", "-o", model / "out", names="rope_scaling")


def test_a_huge_context_allocates_nothing(edgeq, model):
    _edit(model / "config.json", max_position_embeddings=2**31 - 1)
    for to, quant in (("gguf", "Q4_0"), ("onnx", "float32")):
        done = edgeq("export", model, "--to", to, "-q", quant, "-o", model / "out", "--no-proof")
        assert done.code == 0, done.err
    for name in ("model-Q4_0.gguf", "model.onnx"):
        assert edgeq("run", model / "out" / name, "-p", "hi", "-n", 2).code == 0


@BOTH
def test_tensor_of_the_wrong_shape(refused, model, to, quant):
    name = "model.layers.3.mlp.up_proj.weight"
    _weights(model, lambda tensors: tensors.update({name: tensors[name][:-1]}))
    line = refused("export", model, "--to", to, "-q", quant, "-o", model / "out", names=model)
    assert name in line
    assert "[767, 256]" in line
    assert "[768, 256]" in line


@BOTH
def test_missing_tensor(refused, model, to, quant):
    name = "model.layers.5.self_attn.k_proj.weight"
    _weights(model, lambda tensors: tensors.pop(name))
    line = refused("export", model, "--to", to, "-q", quant, "-o", model / "out", names=model)
    assert "layers.5.self_attn.k_proj.weight" in line


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize(
    ("to", "quant"), [*EXPORTS, ("gguf", "F32"), ("onnx", "float32"), ("onnx", "int8-dynamic")]
)
def test_weights_that_are_no_numbers(refused, model, to, quant, value):
    name = "model.layers.2.mlp.down_proj.weight"

    def damage(tensors):
        tensors[name] = tensors[name].copy()
        tensors[name][5, 7] = value

    _weights(model, damage)
    line = refused("export", model, "--to", to, "-q", quant, "-o", model / "out", names=model)
    assert name in line


def test_weights_that_are_no_numbers_in_run(edgeq, model):
    _weights(
        model, lambda tensors: tensors.update({"model.norm.weight": tensors["model.norm.weight"] * np.nan})
    )
    done = edgeq("run", model, "-p", "hi", "--temp", 1)
    assert (done.code, done.out) == (1, "hi")
    _is_one_line(done.err)
    assert str(model) in done.err


@pytest.mark.parametrize(
    "path", ["../../etc", "/etc", "..", "a\0b", "x" * 300, ["1_Pooling"]], ids=lambda path: repr(path)[:12]
)
def test_modules_json_that_leaves_the_folder(refused, model, path):
    (model / "modules.json").write_text(json.dumps([{"type": "x.Pooling", "path": path}]))
    refused("export", model, "--to", "gguf", "-q", "F16", "-o", model / "out", names=model)


# Tokenizers.


@pytest.mark.parametrize(
    "text", [None, "", "{}", "[1]", '{"model": {"type": "BPE"}}', "\xff\xfe", "[" * 100_000]
)
@BOTH
def test_tokenizer_json(refused, model, to, quant, text):
    file = model / "tokenizer.json"
    file.unlink()
    if text is not None:
        file.write_text(text, "latin-1")
    refused("export", model, "--to", to, "-q", quant, "-o", model / "out", names=file)
    refused("run", model, "-p", "hi", names=file)


@pytest.mark.parametrize("value", ["</s>", [[1]], [None], 1.5, True, {}])
def test_end_tokens_that_are_none(refused, model, value):
    file = model / "generation_config.json"
    _edit(file, eos_token_id=value)
    refused("run", model, "-p", "hi", names=file)


# The text to calibrate on.


@pytest.mark.parametrize(
    ("content", "said"), [(b"", "empty"), (b" \n\t\r\n", "empty"), (b"caf\xe9", "UTF-8"), (None, "")]
)
@BOTH
def test_calibration_file(refused, tinylm, tmp_path, to, quant, content, said):
    file = tmp_path / "text.txt"
    if content is not None:
        file.write_bytes(content)
    line = refused(
        "export", tinylm, "--to", to, "-q", quant, "-o", tmp_path / "out", "--calibration", file, names=file
    )
    assert said in line


def test_calibration_is_a_folder(refused, tinylm, tmp_path):
    out = tmp_path / "out"
    refused(
        "export", tinylm, "--to", "gguf", "-q", "F16", "-o", out, "--calibration", tmp_path, names=tmp_path
    )


# GGUF and ONNX files.


def _cuts(content: bytes) -> list[bytes]:
    dice = random.Random(0)
    places = [0, 1, 3, 4, 7, 8, 16, 23, 24, 25, 100, 5000, len(content) // 2, len(content) - 1]
    places += [dice.randrange(len(content)) for _ in range(10)]
    return [content[:place] for place in places]


def test_gguf_cut_anywhere(refused, exported, tmp_path):
    file = tmp_path / "cut.gguf"
    for content in _cuts(exported.gguf.read_bytes()):
        file.write_bytes(content)
        refused("inspect", file, names=file, below=5)
        refused("run", file, "-p", "hi", names=file, below=5)


def test_gguf_of_random_bytes(refused, tmp_path):
    file = tmp_path / "random.gguf"
    dice = random.Random(1)
    for start in (b"", b"GGUF", b"GGUF\x03\0\0\0", b"GGUF\x03\0\0\0" + bytes(8), b"\0" * 300):
        file.write_bytes(start + dice.randbytes(3000))
        refused("inspect", file, names=file, below=5)
        refused("run", file, "-p", "hi", names=file, below=5)


def _damaged_metadata(path: Path, source: Path, **changes: Any) -> None:
    """A GGUF file with the metadata of another and no tensors."""
    from edgeq.formats.gguf.reader import GGUFFile

    with GGUFFile.open(source) as file:
        metadata = {k: v for k, v in file.metadata.items() if k != "general.architecture"}
    metadata |= {key.replace("__", "."): value for key, value in changes.items()}
    metadata = {key: value for key, value in metadata.items() if value is not None}
    with GGUFWriter(path, "llama", metadata, []):
        pass


@pytest.mark.parametrize(
    "changes",
    [{}, {"llama__block_count": 2**40}, {"llama__block_count": float("inf")}, {"llama__block_count": "6"},
     {"llama__attention__head_count": 10**6}, {"llama__embedding_length": 2**60}, {"llama__embedding_length": None}],
    ids=str,
)  # fmt: skip
def test_gguf_metadata_that_cannot_be(refused, exported, tmp_path, changes):
    file = tmp_path / "bad.gguf"
    _damaged_metadata(file, exported.gguf, **changes)
    refused("run", file, "-p", "hi", names=file, below=5)


def test_onnx_cut_anywhere(refused, edgeq, exported, tmp_path):
    for companion in ("tokenizer.json", "config.json"):
        (tmp_path / companion).write_bytes((exported.folder / companion).read_bytes())
    file = tmp_path / "cut.onnx"
    for content in _cuts(exported.onnx.read_bytes())[::2]:
        file.write_bytes(content)
        refused("run", file, "-p", "hi", names=file)
        done = edgeq(
            "inspect", file
        )  # a cut between two of protobuf's fields is a shorter file, not a broken one
        if done.code:
            _is_one_line(done.err)
            assert str(file) in done.err


def test_onnx_of_random_bytes(refused, exported, tmp_path):
    (tmp_path / "tokenizer.json").write_bytes((exported.folder / "tokenizer.json").read_bytes())
    file = tmp_path / "random.onnx"
    for seed in range(5):
        file.write_bytes(random.Random(seed).randbytes(2000))
        refused("inspect", file, names=file)
        refused("run", file, "-p", "hi", names=file)


def test_onnx_without_its_tokenizer(refused, exported, tmp_path):
    file = tmp_path / "model.onnx"
    file.symlink_to(exported.onnx)
    refused("run", file, "-p", "hi", names=tmp_path / "tokenizer.json")


def test_neither_gguf_nor_onnx(refused, tinylm, tmp_path):
    refused("inspect", tinylm / "README.md", names=tinylm / "README.md")
    refused("inspect", tmp_path / "absent.gguf", names=tmp_path / "absent.gguf")
    refused("run", tmp_path / "absent.gguf", "-p", "hi", names=tmp_path / "absent.gguf")
    refused("run", tinylm / "README.md", "-p", "hi", names=tinylm / "README.md")
    refused("inspect", tmp_path, names=tmp_path)
    refused(
        "export", exported_file := tinylm / "config.json", "--to", "gguf", "-q", "F16", names=exported_file
    )


# Outputs.


@BOTH
def test_output_that_exists(refused, tinylm, tmp_path, to, quant):
    name = "model-Q4_0.gguf" if to == "gguf" else "model_int8.onnx"
    (tmp_path / name).write_bytes(b"precious")
    line = refused("export", tinylm, "--to", to, "-q", quant, "-o", tmp_path, names=tmp_path / name, below=5)
    assert "--force" in line


def test_another_models_tokenizer_is_not_replaced(refused, tinylm, tmp_path):
    (tmp_path / "tokenizer.json").write_text("{}")
    refused(
        "export", tinylm, "--to", "onnx", "-q", "float32", "-o", tmp_path, names=tmp_path / "tokenizer.json"
    )


def test_output_is_a_file(refused, tinylm, tmp_path):
    file = tmp_path / "file"
    file.write_text("precious")
    for out in (file, file / "deeper"):
        refused("export", tinylm, "--to", "gguf", "-q", "F16", "-o", out, names=out)


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="/proc is a folder that not even root writes to")
@BOTH
def test_unwritable_folder(refused, tinylm, to, quant):
    refused("export", tinylm, "--to", to, "-q", quant, "-o", "/proc/edgeq/out", names="/proc/edgeq/out")
    refused("export", tinylm, "--to", to, "-q", quant, "-o", "/proc/self", names="/proc/self")


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"exports": 1}', '{"exports": [1]}', '{"exports": [{}]}', '{"exports": [{"file": "a.gguf"}]}',
     '{"exports": [{"file": "a", "tensors": [{"name": 1}]}]}', "[" * 100_000],
    ids=range(9),
)  # fmt: skip
def test_malformed_edgeq_json(refused, tinylm, tmp_path, text):
    """Said before the work, and the file is left as it was."""
    (tmp_path / "edgeq.json").write_text(text)
    refused("export", tinylm, "--to", "gguf", "-q", "F16", "-o", tmp_path, names=tmp_path / "edgeq.json")


@pytest.mark.parametrize("which", ["gguf", "onnx"])
def test_full_disk_at_the_record(edgeq, tinylm, tmp_path, monkeypatch, which):
    """The model was written whole and stays; edgeq.json of before stays as it was."""

    fsync = os.fsync

    def full(descriptor: int) -> None:
        if Path(f"/proc/self/fd/{descriptor}").readlink().name.startswith(".edgeq."):
            raise OSError(28, "No space left on device")
        fsync(descriptor)

    monkeypatch.setattr(atomic.os, "fsync", full)
    options = ("--to", which, "-q", dict(EXPORTS)[which], "-o", tmp_path / "out", "--no-proof")
    done = edgeq("export", tinylm, *options)
    assert done.code == 1
    _is_one_line(done.err)
    assert "disk is full" in done.err
    assert not list(tmp_path.rglob(".*"))


def _spawn(*arguments: object, limit: int | None = None) -> subprocess.Popen[str]:
    def prepare() -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a background shell hands it down ignored
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    return subprocess.Popen(
        [sys.executable, "-m", "edgeq", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=prepare,
    )


@BOTH
def test_file_that_cannot_grow(tinylm, tmp_path, to, quant):
    """As on a full disk: the system refuses to write past one megabyte."""
    out = tmp_path / "out"
    process = _spawn("export", tinylm, "--to", to, "-q", quant, "-o", out, "--no-proof", limit=1_000_000)
    stdout, err = process.communicate(timeout=120)
    assert (process.returncode, stdout) == (1, "")
    _is_one_line(err)
    assert str(out) in err
    assert not out.exists()


@pytest.mark.parametrize(("number", "word"), [(signal.SIGINT, "interrupted"), (signal.SIGTERM, "terminated")])
@BOTH
def test_interrupted(tinylm, tmp_path, to, quant, number, word):
    out = tmp_path / "out"
    process = _spawn("export", tinylm, "--to", to, "-q", quant, "-o", out)
    deadline = time.monotonic() + 60
    while not (out.is_dir() and list(out.iterdir())) and time.monotonic() < deadline:
        time.sleep(0.01)  # until it writes
    time.sleep(0.05)
    process.send_signal(number)
    stdout, err = process.communicate(timeout=60)
    assert (process.returncode, stdout) == (1, "")
    assert err == f"edgeq: error: {word}\n"
    assert not list(tmp_path.rglob(".*"))


def test_an_ignored_interrupt_stays_ignored(monkeypatch):
    """As under nohup."""
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        monkeypatch.setattr("edgeq.cli.app", lambda: os.kill(os.getpid(), signal.SIGTERM))
        main()
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_reader_that_goes_away(exported):
    process = _spawn("inspect", exported.gguf, "--json")
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == ""
    assert process.wait(timeout=60) == 1


# Names and options.


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
     ("--percentile", 200, "--to", "onnx", "-q", "int8")],
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
     ("run", "m", "-p", "hi", "--top-p", 0)],
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
