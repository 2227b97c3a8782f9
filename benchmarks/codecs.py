"""Speed of the codecs, Mvalues/s: ours in Numba, its plain twin, and the peer, ggml, on as many threads.

python benchmarks/codecs.py [--types Q4_K,Q6_K] [--rows 1024] [--columns 2048] [--importance]
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
import ggml

from edgeq.formats.blocks import all_types, by_name
from edgeq.kernels_cpu import threads
from edgeq.kernels_cpu.decode import decode
from edgeq.kernels_cpu.encode import encode
from edgeq.kernels_cpu.matmul import matmul

PLAIN_SHARE = 16  # the plain twins get this part of the rows: they are slow


class Comparison(NamedTuple):
    """Columns of one table; each function takes (type name, values, encoded rows, importance)."""

    ours: Callable[..., object]
    plain: Callable[..., object]
    peer: Callable[..., object] | None


def ggml_on_threads(name: str, values: np.ndarray, _rows: np.ndarray, importance: np.ndarray | None) -> None:
    """ggml_quantize_chunk is single-threaded and holds no GIL: one part of the rows per thread."""
    parts = np.array_split(values, threads.get_threads())
    with ThreadPoolExecutor(len(parts)) as pool:
        list(pool.map(lambda part: ggml.quantize(name, part, importance), parts))


def plain_matmul(name: str, values: np.ndarray, rows: np.ndarray, _importance: object) -> object:
    return values[:1] @ by_name(name).decode(rows, values.shape[1]).T


COMPARISONS = {
    "encode": Comparison(
        lambda name, values, rows, importance: encode(name, values, importance),
        lambda name, values, rows, importance: by_name(name).encode(values, importance),
        ggml_on_threads if ggml.library() else None,
    ),
    "decode": Comparison(
        lambda name, values, rows, importance: decode(name, rows, values.shape[1]),
        lambda name, values, rows, importance: by_name(name).decode(rows, values.shape[1]),
        None,
    ),
    "product, 1 row": Comparison(
        lambda name, values, rows, importance: matmul(values[:1], rows, name), plain_matmul, None
    ),
}


def best_seconds(function: Callable[[], object], repeats: int = 4) -> float:
    function()  # compiles, or loads the cache
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times)


def speed(function: Callable[..., object] | None, name: str, values: np.ndarray, importance: object) -> str:
    if function is None:
        return "-"
    rows = encode(name, values)
    return f"{values.size / best_seconds(lambda: function(name, values, rows, importance)) / 1e6:.0f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--types", default=",".join(t.name for t in all_types()))
    parser.add_argument("--rows", type=int, default=1024)
    parser.add_argument("--columns", type=int, default=2048)
    parser.add_argument("--importance", action="store_true")
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    values = rng.standard_normal((options.rows, options.columns)).astype(np.float32) * np.float32(0.02)
    importance = rng.exponential(size=options.columns).astype(np.float32) if options.importance else None
    few = values[: max(1, options.rows // PLAIN_SHARE)]
    print(f"Mvalues/s, {threads.get_threads()} threads, {options.rows} x {options.columns} Gaussian values")
    print(f"{'type':6}{'operation':16}{'numba':>8}{'plain':>8}{'ggml':>8}")
    for name in options.types.split(","):
        for operation, (ours, plain, peer) in COMPARISONS.items():
            figures = [
                speed(function, name, part, importance)
                for function, part in ((ours, values), (plain, few), (peer, values))
            ]
            print(f"{name:6}{operation:16}" + "".join(f"{figure:>8}" for figure in figures), flush=True)


if __name__ == "__main__":
    main()
