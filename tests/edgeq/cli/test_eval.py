"""``edgeq eval`` and ``edgeq gate``: what they print and write, and what a user gets wrong."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import run_edgeq

from edgeq.runtimes import llama_cpp

pytest.importorskip("jsonschema")

TEXT = "import os\nfor name in os.listdir('.'):\n    print(name, len(name))\n" * 40
SHORT = ("--context", 64, "--max-tokens", 256, "--threads", 1)
BUDGET = 'max_kl_mean = 0.5\nmax_kl_99 = 1e-9\nmax_size = "1KB"\nmax_memory = "100GB"\n'


@dataclass
class Measured:
    folder: Path
    gguf: Path
    text: Path
    budget: Path
    record: dict
    err: str


@pytest.fixture(scope="module")
def measured(tinylm, tmp_path_factory) -> Measured:
    """TinyLM's Q4_K_M beside itself, with a log, answers and a budget that it breaks twice."""
    folder = tmp_path_factory.mktemp("eval")
    done = run_edgeq(
        "export", tinylm, "--to", "gguf", "-q", "Q4_K_M", "-o", folder, "--no-proof", "--effort", "ggml"
    )
    assert done.code == 0, done.err
    text, budget, prompts = folder / "text.txt", folder / "budget.toml", folder / "prompts.jsonl"
    text.write_text(TEXT)
    budget.write_text(BUDGET)
    prompts.write_text('{"prompt": "x = 1, 2, ", "schema": {"type": "number"}}\n')
    gguf = folder / "model-Q4_K_M.gguf"
    options = (
        "--save-log",
        folder / "log.safetensors",
        "--log-top",
        4096,
        "--prompts",
        prompts,
        "--answer-tokens",
        4,
    )
    done = run_edgeq(
        "eval", gguf, "-d", text, "-r", tinylm, *SHORT, *options, "-o", folder, "--budget", budget, "--json"
    )
    assert done.code == 3, done.err
    return Measured(folder, gguf, text, budget, json.loads(done.out), done.err)


def test_what_is_measured(measured) -> None:
    record = measured.record
    engine = "llama.cpp" if llama_cpp.available() else "embedded"
    assert (record["kind"], record["engine"], record["context"]) == ("decoder", engine, 64)
    assert record["bytes"] == measured.gguf.stat().st_size
    answers = record["answers"]
    assert answers["tokens"] == 4 * (64 - 1 - 32)
    assert 0.001 < answers["kl_mean"] < 0.1
    assert answers["kl_median"] <= answers["kl_90"] <= answers["kl_99"] <= answers["kl_max"]
    assert 0.9 < answers["perplexity_ratio"] < 1.1
    assert record["kl_is_lower_bound"] is False
    cost = record["cost"]
    assert 0 < cost["latency_p50"] <= cost["latency_p95"]
    assert cost["peak_memory_bytes"] > 50e6
    assert min(cost["load_seconds"], cost["prefill_tokens_per_second"]) > 0
    assert record["structured"]["prompts"] == record["structured"]["reference"]["prompts"] == 1
    assert {*record["slices"]} == {"by_position", "by_frequency"}


def test_one_line_for_every_broken_limit(measured) -> None:
    lines = [line for line in measured.err.splitlines() if line.startswith("edgeq: gate:")]
    assert len(lines) == len(measured.record["broken"]) == 2
    assert "KL at 99 %" in lines[0]
    assert "size is 3.8 MB, above max_size = 0.0 MB" in lines[1]


def test_the_report_shows_it_beside_the_export(measured) -> None:
    written = json.loads((measured.folder / "edgeq.json").read_text())
    assert [one["file"] for one in written["evaluations"]] == ["model-Q4_K_M.gguf"]
    assert len(written["exports"]) == 1
    page = (measured.folder / "report.html").read_text()
    assert "model-Q4_K_M.gguf evaluated" in page
    assert "Where it loses" in page
    assert "above max_size" in page


def test_a_log_serves_again_and_the_table_tells(measured, edgeq) -> None:
    """The model beside its own log differs by nothing."""
    done = edgeq(
        "eval",
        measured.gguf,
        "-d",
        measured.text,
        "-r",
        measured.folder / "log.safetensors",
        *SHORT,
        "--no-speed",
    )
    assert done.code == 0, done.err
    assert "beside log of model-Q4_K_M.gguf" in done.out
    rows = {line.split("  ")[0].strip(): line.split() for line in done.out.splitlines() if line.strip()}
    assert float(rows["KL, mean"][2]) == pytest.approx(0, abs=2e-6)
    assert rows["same top token"][3] == "100.00%"


def test_a_gate_compares_with_before(measured, edgeq, tmp_path) -> None:
    now = measured.folder / "edgeq.json"
    done = edgeq("gate", measured.folder, "--baseline", now)
    assert (done.code, done.out) == (0, "1 measurement keeps what was asked\n")
    before = json.loads(now.read_text())
    before["evaluations"][0]["answers"] |= {"kl_mean": 1e-5, "kl_standard_error": 1e-6}
    (tmp_path / "edgeq.json").write_text(json.dumps(before))
    done = edgeq("gate", measured.folder, "--baseline", tmp_path, "--budget", measured.budget, "--json")
    assert done.code == 3
    broken = json.loads(done.out)["broken"]
    assert len(broken) == 3
    assert "mean KL rose from 1e-05" in broken[-1]


def test_an_export_keeps_a_budget(tinylm, measured, edgeq, tmp_path) -> None:
    budget = tmp_path / "budget.toml"
    budget.write_text("min_top1 = 0.5\nmax_kl_mean = 1e-9\n")
    done = edgeq(
        "export", tinylm, "--to", "gguf", "-q", "Q4_K_M", "-o", tmp_path / "out", "--no-proof", "--effort", "ggml",
        "--calibration", measured.text, "--budget", budget, "--threads", 1, "--json",
    )  # fmt: skip
    assert done.code == 3, done.err
    assert len(json.loads(done.out)["broken"]) == 1
    assert "mean KL is" in done.err
    written = json.loads((tmp_path / "out" / "edgeq.json").read_text())
    assert (len(written["exports"]), len(written["evaluations"])) == (1, 1)


def test_a_quantized_file_keeps_a_budget(measured, edgeq, tmp_path) -> None:
    """The file beside its own source; a folder without edgeq.json gets none."""
    budget = tmp_path / "budget.toml"
    budget.write_text('max_kl_mean = 1e-9\nmax_p95 = "60s"\nmax_memory = "100GB"\nmax_perplexity_ratio = 9\n')
    done = edgeq(
        "quantize", measured.gguf, "-o", tmp_path / "q.gguf", "-q", "Q4_0", "--effort", "ggml", "--allow-requantize",
        "--budget", budget, "--threads", 1, "--json",
    )  # fmt: skip
    assert done.code == 3, done.err
    assert len(json.loads(done.out)["broken"]) == 1
    assert "q.gguf: mean KL is" in done.err
    assert not (tmp_path / "edgeq.json").exists()


def test_what_cannot_be_measured(measured, tinylm, refused, tmp_path) -> None:
    model, text = measured.gguf, measured.text
    refused("eval", tmp_path / "none.gguf", names="none.gguf")
    refused("eval", model, "-d", tmp_path / "none.txt", names="none.txt")
    refused("eval", model, "-d", text, "--engine", "onnxruntime", names="--engine onnxruntime", code=2)
    refused("eval", tinylm, "-d", text, "--kv-type", "q8_0", names="--kv-type", code=2)
    refused("eval", model, "-d", text, "--context", 5000, names="--context 5000", code=2)
    refused("eval", model, "-d", text, "--layers", "--no-speed", *SHORT, names="--layers", code=2)
    refused("eval", model, "-d", text, "-o", _other_record(tmp_path), names="is not edgeq's record")
    unknown = tmp_path / "unknown.toml"
    unknown.write_text("max_kl = 1")
    refused("eval", model, "-d", text, "--budget", unknown, names="unknown key 'max_kl'")
    refused("gate", measured.folder, names="give --baseline, --budget or both", code=2)
    refused("gate", tmp_path / "out", "--budget", measured.budget, names="no such file")


def _other_record(folder: Path) -> Path:
    other = folder / "other"
    other.mkdir()
    (other / "edgeq.json").write_text('{"exports": 3}')
    return other
