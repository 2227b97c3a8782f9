"""``edgeq export`` as a user meets it: the files, the record, the report, the two streams."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from edgeq.formats.gguf.reader import GGUFFile
from edgeq.hub import model_name

PAGE = "report.html"
COMPANIONS = {"config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"}


@pytest.fixture(scope="module")
def records(exported) -> dict[str, Any]:
    document = json.loads((exported.folder / "edgeq.json").read_text("utf-8"))
    return {record["file"]: record for record in document["exports"]}


def test_export_writes_these_files_and_no_others(exported):
    expected = {exported.gguf.name, exported.onnx.name, "edgeq.json", PAGE} | COMPANIONS
    assert {path.name for path in exported.folder.iterdir()} == expected


def test_two_exports_share_edgeq_json(exported, records):
    assert list(records) == [exported.gguf.name, exported.onnx.name]


def test_record_has_every_tensor_with_its_type(exported, records):
    with GGUFFile.open(exported.gguf) as file:
        expected = {info.name: (info.type_name, info.nbytes) for info in file.tensors.values()}
    tensors = records[exported.gguf.name]["tensors"]
    assert {t["name"]: (t["type_name"], t["nbytes"]) for t in tensors} == expected
    assert {t["type_name"] for t in tensors} >= {"F32", "Q4_K", "Q6_K"}
    assert all(0 < t["error"] < 0.2 for t in tensors if t["type_name"] in ("Q4_K", "Q6_K"))
    assert {"int8", "float"} <= {t["type_name"] for t in records[exported.onnx.name]["tensors"]}


def test_sha256_and_size_are_those_of_the_files(exported, records):
    for record in records.values():
        sizes = 0
        for name, digest in record["sha256"].items():
            content = (exported.folder / name).read_bytes()
            sizes += len(content)
            assert hashlib.sha256(content).hexdigest() == digest
        assert record["bytes"] == sizes


def test_versions_are_the_installed_ones(records):
    for record in records.values():
        versions = record["versions"]
        assert {"edgeq", "python", "numpy", "onnxruntime", "tokenizers"} <= versions.keys()
        assert versions["numpy"] == importlib.metadata.version("numpy")


def test_proof_says_runtime_text_quality_and_speed(exported, records):
    for record in records.values():
        proof = record["proof"]
        assert proof["runtime"]
        assert proof["builtin_text"] is True
        assert 0 <= proof["kl_mean"] < 0.05
        assert 0.8 < proof["top1_agreement"] <= 1
        assert proof["perplexity"] == pytest.approx(proof["perplexity_float"], rel=0.1)
        for key in ("load_seconds", "prefill_tokens_per_second", "decode_tokens_per_second"):
            assert proof[key] > 0
    assert "ONNX Runtime" in records[exported.onnx.name]["proof"]["runtime"]
    assert records[exported.onnx.name]["proof"]["speed_against_float"] > 0


def test_json_is_the_record_alone_on_stdout(exported, records):
    for done, record in zip(exported.printed, records.values(), strict=True):
        assert json.loads(done.out) == record


def test_json_owns_stdout_of_a_real_process(tinylm, tmp_path):
    """The libraries' own printing, which redirecting Python's streams does not see, stays off stdout."""
    command = [
        "-m",
        "edgeq",
        "export",
        str(tinylm),
        "--to",
        "gguf",
        "-q",
        "q8_0",
        "-o",
        str(tmp_path),
        "--threads",
        "1",
    ]
    done = subprocess.run([sys.executable, *command, "--json"], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["quant"] == "Q8_0"
    assert done.stderr == ""  # no terminal: no progress bar, and nothing to warn of


class _Loads(HTMLParser):
    """Everything in a page that a browser would fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("src", "href", "xlink:href", "data", "srcset", "action") and not (
                value or ""
            ).startswith("#"):
                self.found.append(f"{tag} {name}={value}")
        if tag in ("script", "link", "iframe", "object", "embed"):
            self.found.append(tag)


def test_report_is_one_self_contained_page(exported):
    page = (exported.folder / PAGE).read_text("utf-8")
    loads = _Loads()
    loads.feed(page)
    assert loads.found == []
    assert not re.search(r"url\(\s*['\"]?(?!#)|@import", page)
    assert page.count("<svg") == 2  # error by layer, twice
    assert page.count('class="bars"') == 2


def test_report_has_the_figures_and_every_tensor(exported, records):
    page = (exported.folder / PAGE).read_text("utf-8")
    for record in records.values():
        assert f"<h2>{record['file']}</h2>" in page
        assert all(digest in page for digest in record["sha256"].values())
        assert all(f"<code>{tensor['name']}</code>" in page for tensor in record["tensors"])


def test_svg_ids_of_different_plots_do_not_collide(exported):
    """A second plot that clips by the first one's id would be cut to the first one's frame."""
    ids = re.findall(r'<clipPath id="([^"]+)"', (exported.folder / PAGE).read_text("utf-8"))
    assert len(ids) == len(set(ids)) > 0


def test_report_escapes_names_from_the_model(edgeq, tinylm, tmp_path):
    model = tmp_path / "<script>"
    model.mkdir()
    for file in tinylm.iterdir():
        (model / file.name).symlink_to(file)
    out = tmp_path / "out"
    assert edgeq("export", model, "--to", "gguf", "-q", "F16", "-o", out, "--no-proof").code == 0
    assert "<script>" not in (out / PAGE).read_text("utf-8")


def test_no_proof(floats):
    for record in json.loads((floats.folder / "edgeq.json").read_text("utf-8"))["exports"]:
        assert record["proof"] is None
    assert "skipped (--no-proof)" in floats.printed[0].out
    assert "skipped (--no-proof)" in (floats.folder / PAGE).read_text("utf-8")


def test_human_output_names_what_was_written(floats):
    for done, path in zip(floats.printed, (floats.gguf, floats.onnx), strict=True):
        assert str(path) in done.out
        assert str(floats.folder / PAGE) in done.out


def test_force_replaces_the_record_too(edgeq, tinylm, tmp_path):
    command = ("export", tinylm, "--to", "gguf", "-q", "bf16", "-o", tmp_path, "--no-proof")
    assert edgeq(*command).code == 0
    before = (tmp_path / "model-BF16.gguf").stat().st_ino
    assert edgeq(*command, "--force").code == 0
    assert (tmp_path / "model-BF16.gguf").stat().st_ino != before
    assert len(json.loads((tmp_path / "edgeq.json").read_text("utf-8"))["exports"]) == 1


def test_exports_are_the_same_bytes_again(edgeq, tinylm, floats, tmp_path):
    assert edgeq("export", tinylm, "--to", "gguf", "-q", "f32", "-o", tmp_path, "--no-proof").code == 0
    assert (tmp_path / floats.gguf.name).read_bytes() == floats.gguf.read_bytes()


def test_calibration_text_is_named_in_the_proof(edgeq, tinylm, tmp_path):
    text = tmp_path / "mine.txt"
    text.write_text("def main():\n    return 'naïve'\n" * 8, "utf-8")
    done = edgeq(
        "export", tinylm, "--to", "onnx", "-q", "int8-dynamic", "-o", tmp_path / "out",
        "--calibration", text, "--threads", 1, "--json",
    )  # fmt: skip
    assert done.code == 0, done.err
    proof = json.loads(done.out)["proof"]
    assert (proof["text"], proof["builtin_text"]) == (str(text), False)


def test_output_folder_is_named_after_the_model(edgeq, tinylm, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert edgeq("export", f"{tinylm}/", "--to", "gguf", "-q", "F16", "--no-proof").code == 0
    assert (tmp_path / "tinylm-edgeq" / "model-F16.gguf").is_file()


def test_a_model_given_as_dot_has_its_folders_name(edgeq, tinylm, tmp_path, monkeypatch):
    copy = tmp_path / "mine"
    copy.mkdir()
    for file in tinylm.iterdir():
        (copy / file.name).symlink_to(file)
    monkeypatch.chdir(copy)
    assert edgeq("export", ".", "--to", "gguf", "-q", "F16", "--no-proof").code == 0
    assert (copy / "mine-edgeq" / "model-F16.gguf").is_file()


def test_export_into_the_models_own_folder(edgeq, tinylm, tmp_path):
    """The tokenizer and config that go beside a graph are there already."""
    for file in tinylm.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    assert edgeq("export", tmp_path, "--to", "onnx", "-q", "float32", "-o", tmp_path, "--no-proof").code == 0
    assert (tmp_path / "config.json").read_bytes() == (tinylm / "config.json").read_bytes()


def test_a_downloaded_models_name_is_its_repositorys(tmp_path):
    snapshot = tmp_path / "models--HuggingFaceTB--SmolLM2-135M" / "snapshots" / "93efa2f0"
    assert model_name(snapshot) == "SmolLM2-135M"
    assert model_name(tmp_path / "plain") == "plain"


def test_encoder_to_gguf(edgeq, minilm, tmp_path):
    text = tmp_path / "sentences.txt"
    text.write_text("A cat sleeps.\nRivers run to the sea.\n\nThe train is late again.\n", "utf-8")
    options = ("--calibration", text, "--threads", 1, "--json")
    done = edgeq("export", minilm, "--to", "gguf", "-q", "Q8_0", "-o", tmp_path, *options)
    assert done.code == 0, done.err
    assert json.loads(done.out)["proof"]["sentences"] == 3
    proof = json.loads(done.out)["proof"]
    assert proof["cosine_min"] > 0.99
    assert proof["sentences_per_second"] > 0


def test_fallbacks_are_told_on_stderr_before_the_file(edgeq, minilm, tmp_path):
    """MiniLM's rows of 384 do not divide by Q4_K's 256."""
    done = edgeq("export", minilm, "--to", "gguf", "-q", "Q4_K_M", "-o", tmp_path, "--no-proof", "--json")
    assert done.code == 0
    assert re.search(r"edgeq: \d+ tensors fall back from Q4_K to \w+", done.err)
    assert any("do not divide for Q4_K" in note for note in json.loads(done.out)["notes"])


def test_paths_with_spaces_and_letters_of_any_script(edgeq, tinylm, tmp_path):
    out = tmp_path / "mit Leerzeichen ü 模型"
    assert edgeq("export", tinylm, "--to", "gguf", "-q", "F16", "-o", out, "--no-proof").code == 0
    assert Path(out / "model-F16.gguf").is_file()


def test_export_takes_what_quantize_takes(edgeq, tinylm, tmp_path):
    """Weights of columns, types of single tensors and the effort: the same tensors as from ``edgeq quantize``."""
    text = tmp_path / "text.txt"
    text.write_text("def add(a, b):\n    return a + b\n" * 40, "utf-8")
    imatrix = tmp_path / "imatrix.gguf"
    assert edgeq("calibrate", tinylm, "--data", text, "-o", imatrix, "--chunk-size", 64).code == 0
    options = ("-q", "Q4_K_S", "--imatrix", imatrix, "--tensor-type", "attn_v=Q5_K", "--effort", "ggml")
    assert edgeq("export", tinylm, "--to", "gguf", "--no-proof", "-o", tmp_path, *options).code == 0
    assert edgeq("quantize", tinylm, "-o", tmp_path / "other.gguf", *options).code == 0
    with (
        GGUFFile.open(tmp_path / "model-Q4_K_S.gguf") as ours,
        GGUFFile.open(tmp_path / "other.gguf") as other,
    ):
        assert ours.info("blk.0.attn_v.weight").type_name == "Q5_K"
        assert ours.metadata["quantize.imatrix.file"] == imatrix.name
        assert ours.metadata == other.metadata
        assert all(ours.rows(name).tobytes() == other.rows(name).tobytes() for name in ours.tensors)
