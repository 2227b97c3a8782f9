"""``edgeq export`` for a size, a quality or a speed in place of a quant."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import heldout
import onnx
import pytest

from edgeq.formats.gguf.reader import GGUFFile

TYPES = ("--types", "Q4_0,Q5_0,Q8_0")


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "code.txt"
    path.write_text(heldout.code()[:4000])
    return path


def test_a_size_is_kept(edgeq, random_llama: Callable[[str], Path], text: Path, tmp_path: Path) -> None:
    model = random_llama("untied")
    done = edgeq(
        "export", model, "--max-size", "560KB", *TYPES, "--calibration", text, "-o", tmp_path, "--json"
    )
    assert done.code == 0, done.err
    record = json.loads(done.out)
    assert record["file"] == "model-auto-560KB.gguf"
    path = tmp_path / record["file"]
    assert 0.97 * 560_000 < path.stat().st_size <= 560_000
    chosen = record["allocation"]["types"]
    with GGUFFile.open(path) as file:
        assert {name: file.info(name).type_name for name in chosen} == chosen
    assert len(set(chosen.values())) > 1
    assert record["proof"]["kl_mean"] > 0
    assert "Size against quality" in (tmp_path / "report.html").read_text()
    assert not list(tmp_path.glob(".edgeq*"))


def test_bits_of_an_onnx_graph(
    edgeq, random_llama: Callable[[str], Path], text: Path, tmp_path: Path
) -> None:
    model = random_llama("untied")
    done = edgeq(
        "export", model, "--to", "onnx", "--max-size", "640KB", "--dialect", "ort", "--block-size", 32,
        "--calibration", text, "-o", tmp_path, "--json",
    )  # fmt: skip
    assert done.code == 0, done.err
    record = json.loads(done.out)
    path = tmp_path / "model_auto_640KB.onnx"
    assert path.stat().st_size <= 640_000
    bits = {"Q4_0": 4, "Q8_0": 8, "F16": 16}
    wanted = {name: bits[kind] for name, kind in record["allocation"]["types"].items()}
    assert len(set(wanted.values())) > 1
    nodes = [node for node in onnx.load(path).graph.node if node.op_type == "MatMulNBits"]
    for node in nodes:
        name = node.input[1].rpartition("_int")[0].replace("attn_qkv", "attn_q")
        assert wanted.pop(name) == next(a.i for a in node.attribute if a.name == "bits")
    assert set(wanted.values()) <= {16}


def test_a_cosine_of_an_encoder(edgeq, encoder_folder: Callable[[str], Path], tmp_path: Path) -> None:
    """The smallest file that keeps it; and exit code 3 with the closest where none does."""
    options = ("export", encoder_folder("bert"), "--to", "onnx", "--types", "int4,int8", "--no-proof")
    options += ("-o", tmp_path, "--json")
    done = edgeq(*options, "--min-cosine", "0.9995")
    assert done.code == 0, done.err
    record = json.loads(done.out)
    found = record["allocation"]
    assert found["measure"] == "cosine"
    assert 0.9995 <= found["chosen"]["measured"]["cosine_mean"] < 1
    assert min(found["group_loss"].values()) > 0
    assert "1 - cosine to float" in (tmp_path / "report.html").read_text()
    done = edgeq(*options, "--min-cosine", "0.99999999")
    assert done.code == 3
    assert "the best that fits has a cosine of 0.99" in " ".join(done.err.split())
    done = edgeq(*options, "--max-kl", "0.1")
    assert (done.code, done.out) == (2, "")
    assert "whose quality is cosine; give --min-cosine" in " ".join(done.err.split())


def test_what_cannot_be_is_exit_code_3(
    edgeq, random_llama: Callable[[str], Path], text: Path, tmp_path: Path
) -> None:
    done = edgeq(
        "export", random_llama("untied"), "--max-kl", "1e-9", *TYPES, "--calibration", text, "-o", tmp_path
    )
    assert done.code == 3
    assert "no choice of these types has a KL of 1e-09: the best that fits has" in " ".join(done.err.split())
    assert not list(tmp_path.glob("*.gguf"))


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--max-size", "3X"], "--max-size '3X': a size must be a number"),
        (["--max-size", "3M", "--target-bpw", "4"], "are both sizes"),
        (["--max-kl", "0.1", "--quant", "Q4_K_M"], "--quant does not go with"),
        (["--min-tps", "5", "--to", "onnx"], "--min-tps goes with --to gguf"),
        (["--max-kl", "0.1", "--to", "onnx", "--types", "Q4_K"], "--types q4_k: ONNX's blocked weights are"),
        (["--max-kl", "0"], "--max-kl 0: must be above 0"),
        (["--min-cosine", "1"], "--min-cosine 1: must be below 1"),
        (["--min-cosine", "0.9"], "--min-cosine is not for"),
        (["--to", "gguf", "--quant", "Q4_K_M", "--types", "Q4_K"], "--types goes with --max-size"),
        (["--target-bpw", "4", "--types", "Q4_Z"], "--types Q4_Z"),
    ],
)
def test_contradictions(edgeq, tinylm: Path, tmp_path: Path, options: list[str], problem: str) -> None:
    done = edgeq("export", tinylm, *options, "-o", tmp_path)
    assert (done.code, done.out) == (2, "")
    assert problem in " ".join(done.err.split())
