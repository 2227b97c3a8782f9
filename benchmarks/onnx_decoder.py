"""Decoding in ONNX Runtime: edgeq's 4-bit graphs beside the one that onnxruntime-genai's builder makes.

    python benchmarks/onnx_decoder.py [--layers 16] [--threads 2] [--builder-python PYTHON] [--json]

The weights are those of a synthetic llama of about a billion parameters, the block size is 32, all graphs run in plain
ONNX Runtime of this environment. The builder needs PyTorch, transformers and onnxruntime-genai: give the Python that
has them; without it, edgeq's graphs are timed alone. The builder rounds the head, which is the embedding too, to 4
bits, so "ort, all 4 bits" is the graph to compare it with; by default edgeq leaves it 8. The graphs run in turn; a
ratio is the median of the rounds' ratios, by the processor's time and by the clock.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from export_memory import VOCAB, write_checkpoint
from numpy.typing import NDArray

from edgeq.export import Request, run

BUILDER = "genai's builder"
# The comparison: a name, and what `edgeq export` is told.
OURS: dict[str, dict[str, Any]] = {
    "ort, all 4 bits": {"dialect": "ort", "tied_bits": 4},
    "ort": {"dialect": "ort"},
    "standard": {"dialect": "standard"},
}
Feeds = dict[str, NDArray[Any]]


def prepare(folder: Path, layers: int) -> None:
    """The checkpoint, with what transformers wants to see in it."""
    write_checkpoint(folder, layers)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"architectures": ["LlamaForCausalLM"]}))
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps(json.loads(index.read_text()) | {"metadata": {"total_size": 0}}))


def build(python: str, source: Path, target: Path) -> Path | None:
    """The builder's graph; None, with the reason on stderr, where it cannot be made."""
    module = [python, "-m", "onnxruntime_genai.models.builder"]
    options = ["-m", str(source), "-i", str(source), "-o", str(target), "-p", "int4", "-e", "cpu"]
    done = subprocess.run(
        [*module, *options, "-c", str(target / "cache")],
        cwd=source,  # modules of the folder one stands in would be taken for libraries
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        lines = [line for line in (done.stdout + done.stderr).splitlines() if "Error" in line]
        print(f"{BUILDER}: skipped ({' '.join(lines[-1:]) or 'it says no more'})", file=sys.stderr)
        return None
    return target / "model.onnx"


def export(source: Path, out: Path, options: Mapping[str, Any]) -> Path:
    """edgeq's graph."""
    return run(Request(source, "onnx", "int4", out, proof=False, **options)).path


def session(path: Path, threads: int) -> ort.InferenceSession:
    """A session on the CPU."""
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def feeds(graph: ort.InferenceSession, tokens: int, past: int, head_dim: int) -> Feeds:
    """One sequence of ``tokens`` after ``past`` others, named as optimum does."""
    random, found = np.random.default_rng(0), {}
    for each in graph.get_inputs():
        if each.name == "input_ids":
            found[each.name] = random.integers(0, VOCAB, (1, tokens))
        elif each.name == "attention_mask":
            found[each.name] = np.ones((1, past + tokens), np.int64)
        elif each.name == "position_ids":
            found[each.name] = np.arange(past, past + tokens)[None]
        else:
            found[each.name] = random.standard_normal((1, each.shape[1], past, head_dim), np.float32)
    return found


def compare(
    graphs: Mapping[str, ort.InferenceSession], tokens: int, past: int, rounds: int
) -> dict[str, dict[str, float]]:
    """Milliseconds of each graph, and how much faster it is than the first."""
    head_dim = next(
        i.shape[3]
        for g in graphs.values()
        for i in g.get_inputs()
        if i.name.startswith("past") and isinstance(i.shape[3], int)
    )
    inputs = {name: feeds(graph, tokens, past, head_dim) for name, graph in graphs.items()}
    clock: dict[str, list[float]] = {name: [] for name in graphs}
    cpu: dict[str, list[float]] = {name: [] for name in graphs}
    for round_ in range(rounds + 2):
        names = list(graphs)
        for name in names[round_ % len(names) :] + names[: round_ % len(names)]:
            before = time.perf_counter(), time.process_time()
            graphs[name].run(None, inputs[name])
            if round_ >= 2:  # the first rounds warm up
                clock[name].append(time.perf_counter() - before[0])
                cpu[name].append(time.process_time() - before[1])
    first = next(iter(graphs))
    return {
        name: {
            "milliseconds": 1000 * statistics.median(clock[name]),
            "by_clock": statistics.median(a / b for a, b in zip(clock[first], clock[name], strict=True)),
            "by_processor": statistics.median(a / b for a, b in zip(cpu[first], cpu[name], strict=True)),
        }
        for name in graphs
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", type=int, default=16)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--past", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--builder-python", help="a Python with torch, transformers and onnxruntime-genai")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    report: dict[str, Any] = {"threads": options.threads, "past": options.past}
    with tempfile.TemporaryDirectory(prefix="edgeq-bench-") as temporary:
        root = Path(temporary)
        source = root / "synthetic"
        source.mkdir()
        prepare(source, options.layers)
        paths: dict[str, Path | None] = {}
        if options.builder_python:
            paths[BUILDER] = build(options.builder_python, source, root / "builder")
        for name, told in OURS.items():
            started = time.perf_counter()
            paths[name] = export(source, root / name.replace(",", "").replace(" ", "-"), told)
            report.setdefault("export_seconds", {})[name] = time.perf_counter() - started
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        report["export_peak_bytes"] = peak * (1 if sys.platform == "darwin" else 1024)
        shutil.rmtree(source)
        made = {name: path for name, path in paths.items() if path is not None}
        report["bytes"] = {
            name: sum(file.stat().st_size for file in path.parent.glob(f"{path.name}*"))
            for name, path in made.items()
        }
        graphs = {name: session(path, options.threads) for name, path in made.items()}
        report["decode"] = compare(graphs, 1, options.past, options.rounds)
        report["prefill"] = compare(graphs, 256, 0, max(3, options.rounds // 8))
    show(report, as_json=options.json)


def show(report: dict[str, Any], *, as_json: bool) -> None:
    """The report as a table, or as JSON."""
    if as_json:
        print(json.dumps(report, indent=2))
        return
    print(f"{report['threads']} threads; export: peak memory {report['export_peak_bytes'] / 1e6:.0f} MB")
    for what in ("decode", "prefill"):
        first = next(iter(report[what]))
        print(f"\n{what:<20}{'MB':>8}{'ms':>10}   times as fast as {first}: by clock, by processor")
        for name, row in report[what].items():
            ratios = f"{row['by_clock']:>10.2f}{row['by_processor']:>10.2f}"
            print(f"{name:<20}{report['bytes'][name] / 1e6:>8.0f}{row['milliseconds']:>10.1f}{ratios}")


if __name__ == "__main__":
    main()
