"""Outputs that cannot be written, and processes that are stopped: one line, nothing left behind."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from bad_input import BOTH, EXPORTS, is_one_line

from edgeq.cli import main
from edgeq.formats import atomic


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
    is_one_line(done.err)
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
    is_one_line(err)
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


def test_an_interrupt_that_a_library_calls_otherwise(monkeypatch, capsys):
    """As the first import of ONNX Runtime does, whose initialization then failed."""

    def command() -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(10)
        except BaseException:
            raise ImportError("initialization failed") from None

    monkeypatch.setattr("edgeq.cli.app", command)
    with pytest.raises(SystemExit) as end:
        main()
    assert (end.value.code, capsys.readouterr().err) == (1, "edgeq: error: terminated\n")


def test_a_reader_that_goes_away(exported):
    process = _spawn("inspect", exported.gguf, "--json")
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == ""
    assert process.wait(timeout=60) == 1
