"""Speed of the codecs, Mvalues/s: ours in Numba, its plain twin, and the peer, ggml, on as many threads.

python benchmarks/codecs.py [--types Q4_K,Q6_K] [--rows 1024] [--columns 2048] [--importance]

Ours and the peer take turns, and the ratio is that of the medians: other load on the machine falls on both.
Decoding has writing as many floats to memory for a peer. EDGEQ_ISA forces a lower instruction set.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numba
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
import ggml

from edgeq.devices.detect import instruction_set
from edgeq.formats.blocks import all_types, by_name
from edgeq.kernels_cpu import threads
from edgeq.kernels_cpu.decode import decode
from edgeq.kernels_cpu.encode import encode
from edgeq.kernels_cpu.matmul import matmul

ISA = instruction_set()
POOL = ThreadPoolExecutor(threads.get_threads())
PLAIN_SHARE = 16  # the plain twins get this part of the rows: they are slow


class Comparison(NamedTuple):
    """Columns of one table; each function takes (type name, values, encoded rows, importance)."""

    ours: Callable[..., object]
    plain: Callable[..., object]
    peer: Callable[..., object] | None


def ggml_on_threads(name: str, values: np.ndarray, _rows: np.ndarray, importance: np.ndarray | None) -> None:
    """ggml_quantize_chunk is single-threaded and holds no GIL: one part of the rows per thread."""
    parts = np.array_split(values, threads.get_threads())
    list(POOL.map(lambda part: ggml.quantize(name, part, importance), parts))


@numba.njit(nogil=True)
def fill(first: int, last: int, flat: np.ndarray) -> None:
    for i in range(first, last):
        flat[i] = 1


def write_floats(_name: str, values: np.ndarray, _rows: np.ndarray, _importance: object) -> None:
    """The roof of decoding: fresh memory, as decode's, filled on as many threads."""
    flat = np.empty(values.size, np.float32)
    threads.run(fill, flat.size, 1, flat)


def plain_matmul(name: str, values: np.ndarray, rows: np.ndarray, _importance: object) -> object:
    return values[:1] @ by_name(name).decode(rows, values.shape[1]).T


COMPARISONS = {
    "encode": Comparison(
        lambda name, values, rows, importance: encode(name, values, importance, ISA),
        lambda name, values, rows, importance: by_name(name).encode(values, importance),
        ggml_on_threads if ggml.library() else None,
    ),
    "decode": Comparison(
        lambda name, values, rows, importance: decode(name, rows, values.shape[1], ISA),
        lambda name, values, rows, importance: by_name(name).decode(rows, values.shape[1]),
        write_floats,
    ),
    "product, 1 row": Comparison(
        lambda name, values, rows, importance: matmul(values[:1], rows, name), plain_matmul, None
    ),
}


def median_seconds(functions: list[Callable[[], object] | None], repeats: int = 7) -> list[float | None]:
    """Median time of each function, in turns; None for those that are not there."""
    times: list[list[float]] = [[] for _ in functions]
    for turn in range(repeats + 1):
        for function, seen in zip(functions, times, strict=True):
            if function is None:
                continue
            start = time.perf_counter()
            function()
            if turn:  # the first call compiles, or loads the cache
                seen.append(time.perf_counter() - start)
    return [statistics.median(seen) if seen else None for seen in times]


def figures(
    comparison: Comparison, name: str, values: np.ndarray, importance: np.ndarray | None
) -> list[str]:
    """Mvalues/s of ours, the plain twin and the peer, and ours ÷ peer's."""
    few = values[: max(1, len(values) // PLAIN_SHARE)]
    rows = encode(name, values, isa=ISA)

    def call(function: Callable[..., object] | None, part: np.ndarray) -> Callable[[], object] | None:
        return function and (lambda: function(name, part, rows[: len(part)], importance))

    ours, peer = median_seconds([call(comparison.ours, values), call(comparison.peer, values)])
    (plain,) = median_seconds([call(comparison.plain, few)], 2)
    speeds = [values.size / ours / 1e6, few.size / plain / 1e6, peer and values.size / peer / 1e6]
    return [f"{s:.0f}" if s else "-" for s in speeds] + [f"{peer / ours:.2f}" if peer else "-"]


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
    shape = f"{options.rows} x {options.columns} Gaussian values"
    print(f"Mvalues/s, {threads.get_threads()} threads, {ISA.name}, {shape}; the peer is ggml or memory")
    print(f"{'type':6}{'operation':16}{'numba':>8}{'plain':>8}{'peer':>8}{'ratio':>8}")
    for name in options.types.split(","):
        for operation, comparison in COMPARISONS.items():
            cells = figures(comparison, name, values, importance)
            print(f"{name:6}{operation:16}" + "".join(f"{cell:>8}" for cell in cells), flush=True)


if __name__ == "__main__":
    main()
