"""The embedded engine beside llama.cpp on the same GGUF files: speed, memory, and the time to the first token.

    python benchmarks/engine.py [--quants Q4_K_M,Q8_0] [--threads 2] [--rounds 5] [--models FOLDER] [--json]

The models: a synthetic llama of about a billion parameters (``export_memory.py``) and TinyLM. They are made in a
temporary folder, or in ``--models`` and kept there. Both sides are loaded in one process and take turns; a ratio is
the median over the turns, so that what else the machine does meets both. Memory and start are measured in processes of
their own, also in turns, with warm caches. Where llama-cpp-python is missing, its columns are empty.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import psutil
from export_memory import write_checkpoint

from edgeq.kernels_cpu import threads
from edgeq.runtimes import llama_cpp as peer

ROOT = Path(__file__).parents[1]
CONTEXT, PROMPT = 512, 256
BARS = {  # the least of ours by llama.cpp's, or for the last two the most
    ("Q4_K_M", "decode"): 1.15,
    ("Q8_0", "decode"): 1.05,
    ("Q4_K_M", "prefill"): 1.6,
    ("Q8_0", "prefill"): 2.0,
    ("tinylm", "decode"): 0.5,
}
MOST_START, MOST_MEMORY, MEMORY_BESIDE = 1.5, 1.15, 200e6


class Side(Protocol):
    """One engine with a loaded model."""

    def read(self, tokens: list[int]) -> None:
        """Begin a sequence with these tokens."""

    def step(self, token: int) -> None:
        """One token more."""


class Ours:
    """edgeq."""

    def __init__(self, path: Path, n_threads: int, keep_packed: bool = False) -> None:
        from edgeq.engine import fast
        from edgeq.formats.gguf.split import open_gguf

        threads.set_threads(n_threads)
        self.model = fast.from_gguf(open_gguf(path), keep_packed=keep_packed)

    def read(self, tokens: list[int]) -> None:
        self.cache = self.model.new_cache(CONTEXT)
        self.model.prefill(tokens, self.cache)

    def step(self, token: int) -> None:
        self.model.prefill([token], self.cache)


class Theirs:
    """llama.cpp."""

    def __init__(self, path: Path, n_threads: int) -> None:
        import llama_cpp

        self.llama = llama_cpp.Llama(
            model_path=str(path),
            n_ctx=CONTEXT,
            n_batch=CONTEXT,
            n_threads=n_threads,
            n_threads_batch=n_threads,
            n_gpu_layers=0,
            verbose=False,
        )

    def read(self, tokens: list[int]) -> None:
        self.llama.reset()
        self.llama._ctx.kv_cache_clear()
        self.llama.eval(tokens)

    def step(self, token: int) -> None:
        self.llama.eval([token])


SIDES: dict[str, Callable[[Path, int], Side]] = {"edgeq": Ours, "llama.cpp": Theirs}
KEPT = "edgeq, kept"  # with weights that an earlier start kept as the kernels take them
STARTS = SIDES | {KEPT: functools.partial(Ours, keep_packed=True)}


def make_models(folder: Path, quants: list[str]) -> dict[str, Path]:
    """GGUF files by name; what is there already is taken."""
    found = {}
    for quant in quants:
        found[quant] = folder / f"synthetic-{quant}.gguf"
        if not found[quant].exists():
            checkpoint = folder / "synthetic"
            if not checkpoint.exists():
                checkpoint.mkdir()
                write_checkpoint(checkpoint, 16)
            export(checkpoint, quant, found[quant])
    found["tinylm"] = folder / "tinylm-Q4_K_M.gguf"
    if not found["tinylm"].exists():
        export(ROOT / "tests/assets/tinylm", "Q4_K_M", found["tinylm"])
    return found


def export(checkpoint: Path, quant: str, to: Path) -> None:
    """Write a GGUF file."""
    with tempfile.TemporaryDirectory(dir=to.parent) as folder:
        command = [sys.executable, "-m", "edgeq", "export", str(checkpoint), "--to", "gguf", "--quant", quant]
        command += ["-o", folder, "--no-proof", "--effort", "ggml"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        (Path(folder) / f"model-{quant}.gguf").rename(to)


def speeds(path: Path, names: list[str], n_threads: int, rounds: int, steps: int) -> dict[str, Any]:
    """Tokens a second of each side and the median ratio, prefill and decode."""
    random = np.random.default_rng(0)
    tokens = random.integers(1, 4000, PROMPT + steps).tolist()
    sides = [SIDES[name](path, n_threads) for name in names]
    taken: dict[str, list[list[float]]] = {"prefill": [[] for _ in sides], "decode": [[] for _ in sides]}
    for turn in range(rounds + 1):
        for side, prefill, decode in zip(sides, taken["prefill"], taken["decode"], strict=True):
            started = time.perf_counter()
            side.read(tokens[:PROMPT])
            read = time.perf_counter() - started
            each = []
            for token in tokens[PROMPT:]:
                started = time.perf_counter()
                side.step(token)
                each.append(time.perf_counter() - started)
            if turn:
                prefill.append(PROMPT / read)
                decode.append(1 / statistics.median(each))
    rows = {}
    for what, seen in taken.items():
        row = {name: statistics.median(values) for name, values in zip(names, seen, strict=True)}
        if len(seen) == 2:
            row["ratio"] = statistics.median(a / b for a, b in zip(*seen, strict=True))
        rows[what] = row
    return rows


def first_token(side: str, path: Path, n_threads: int) -> None:
    """Of a process of its own: load, answer once, and print the memory."""
    engine = STARTS[side](path, n_threads)
    loaded = psutil.Process().memory_info().rss
    engine.read([5, 6, 7])
    print(json.dumps({"loaded": loaded, "peak": _peak()}))


def _peak() -> int:
    """Most bytes of memory that this process held; ``ru_maxrss`` would begin with what its parent held."""
    status = Path("/proc/self/status")
    if status.exists():
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
        return int(lines["VmHWM"].split()[0]) * 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def starts(path: Path, names: list[str], n_threads: int, rounds: int) -> dict[str, Any]:
    """Seconds from a process's start to its end after one token, and its memory."""
    sides = [*names, KEPT]
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    memory: dict[str, dict[str, int]] = {}
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    for turn in range(rounds + 1):
        for name in sides:
            command = [
                sys.executable,
                __file__,
                "--first-token",
                name,
                "--threads",
                str(n_threads),
                str(path),
            ]
            environment["EDGEQ_CACHE"] = str(path.parent / ("kept" if name == KEPT else "nothing-kept"))
            started = time.perf_counter()
            done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
            if turn:
                seconds[name].append(time.perf_counter() - started)
            memory[name] = json.loads(done.stdout.splitlines()[-1])
    rows = {"start": dict(seconds), "start, kept": {**seconds, "edgeq": seconds[KEPT]}}
    result: dict[str, Any] = {"memory": memory}
    for what, taken in rows.items():
        result[what] = {name: statistics.median(taken[name]) for name in names}
        if len(names) == 2:
            pairs = zip(*(taken[name] for name in names), strict=True)
            result[what]["ratio"] = statistics.median(a / b for a, b in pairs)
    return result


def measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """All rows of all models."""
    names = list(SIDES) if peer.available() else ["edgeq"]
    result: dict[str, Any] = {"threads": options.threads, "load": os.getloadavg(), "models": {}}
    for model, path in make_models(folder, options.quants.split(",")).items():
        steps = 64 if model == "tinylm" else 24
        rows = speeds(path, names, options.threads, options.rounds, steps)
        rows |= starts(path, names, options.threads, min(3, options.rounds))
        result["models"][model] = rows | {"bytes": path.stat().st_size}
    return result


def show(result: dict[str, Any]) -> None:
    """The table."""
    print(f"{result['threads']} threads; load average {result['load'][0]:.1f} at the start")
    print(f"{'':24}{'edgeq':>12}{'llama.cpp':>12}{'ratio':>8}{'bar':>8}")
    for model, rows in result["models"].items():
        for what in ("prefill", "decode"):
            line(f"{model} {what}, tokens/s", rows[what], "≥ {}", BARS.get((model, what)))
        bar = None if model == "tinylm" else MOST_START
        line(f"{model} start, s", rows["start"], "≤ {}", bar)
        line(f"{model} start, kept", rows["start, kept"], "≤ {}", bar)
        most = MOST_MEMORY * rows["bytes"] + MEMORY_BESIDE
        for moment in ("loaded", "peak"):
            row = {name: values[moment] / 1e6 for name, values in rows["memory"].items()}
            line(f"{model} {moment}, MB", row, "≤ {:.0f} MB", most / 1e6)


def line(name: str, row: dict[str, float], bar: str, limit: float | None) -> None:
    """One row of the table."""
    cells = [row.get(side) for side in SIDES]
    print(f"{name:24}" + "".join(f"{'' if cell is None else f'{cell:.2f}':>12}" for cell in cells), end="")
    print(f"{row['ratio']:8.2f}" if "ratio" in row else f"{'':8}", end="")
    print("" if limit is None else f"  {bar.format(limit)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quants", default="Q4_K_M,Q8_0")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--models", type=Path)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--first-token", choices=STARTS, help=argparse.SUPPRESS)
    parser.add_argument("path", nargs="?", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.first_token:
        first_token(options.first_token, options.path, options.threads)
        return
    with tempfile.TemporaryDirectory(prefix="edgeq-bench-") as temporary:
        folder = options.models or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        result = measure(options, folder)
    print(json.dumps(result, indent=2)) if options.json else show(result)


if __name__ == "__main__":
    main()
