"""Integer products: one row and many, beside what this machine can do at best and what ggml and ONNX Runtime do.

python benchmarks/kernels.py [--types Q4_K,int4x32] [--rows 1,32,256] [--threads 2] [--seconds 3] [--json]

With up to 8 rows the weights come from memory: as many copies as the caches cannot hold take turns. Ours, the
peers and the machine's own limit (reading for one row, else int8 arithmetic on registers) take turns within
milliseconds, and what counts are the medians of the ratios of neighbours: other load on the machine, and memory
that has a fast and a slow state, fall on all of them.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))
from peers import Product, ggml_product, onnxruntime_product
from roofs import clock, peak_gops, read_gbs

from edgeq.devices.detect import instruction_set
from edgeq.formats.blocks import by_name
from edgeq.kernels_cpu import products, threads
from edgeq.kernels_cpu.encode import encode

ISA = instruction_set()
TYPES = "Q4_K,Q8_0,Q6_K,Q5_K,Q4_0,Q4_1,Q5_0,Q5_1,Q2_K,Q3_K,IQ4_NL,IQ4_XS,int4x32,int4x128"
N, K = 8192, 2048
UNCACHED_BYTES = 1 << 27
FEW_ROWS = 8  # up to these, weights come from memory
DISTINCT_ROWS = 256  # encoded; repeated to N


class Weights(NamedTuple):
    """One matrix as a peer has it, and packed."""

    name: str
    encoded: np.ndarray
    scales: np.ndarray | None  # of ONNX
    packed: products.Packed

    def copy(self) -> Weights:
        data = products._empty(self.packed.layout.format, self.packed.n, K, ISA).data
        data[:] = self.packed.data
        return self._replace(encoded=self.encoded.copy(), packed=self.packed._replace(data=data))

    def peer(self, x: np.ndarray) -> Product | None:
        if self.scales is not None:
            return onnxruntime_product(x, self.encoded, self.scales)
        return ggml_product(self.name, x, self.encoded)


def weights_of(name: str, n: int) -> Weights:
    """n × K weights of that type."""
    rng = np.random.default_rng(0)
    if name.startswith("int4x"):
        block = int(name[5:])
        blob = rng.integers(0, 256, (n, K // block, block // 2), dtype=np.uint8)
        scales = rng.random((n, K // block), np.float32)
        return Weights(name, blob, scales, products.pack_blocked(blob, scales, None, K, 4, ISA))
    values = rng.standard_normal((DISTINCT_ROWS, K), np.float32) * np.float32(0.02)
    rows = np.tile(encode(name, values, isa=ISA), (n // DISTINCT_ROWS, 1))
    return Weights(by_name(name).name, rows, None, products.pack(name, rows, K, ISA))


class Figures(NamedTuple):
    """Medians: ours, the limit's and the peer's rate, and how ours compares."""

    type: str
    rows: int
    unit: str
    ours: float
    limit: float
    peer: float | None
    of_limit: float
    of_peer: float | None


def measured(name: str, rows: int, seconds: float) -> Figures:
    """Ours, the limit and the peer in turns for so many seconds."""
    n = N if rows <= 32 else max(DISTINCT_ROWS, N * 32 // rows)  # some milliseconds, however many rows
    first = weights_of(name, n)
    x = np.random.default_rng(1).standard_normal((rows, K), np.float32)
    size = first.packed.data.nbytes
    copies = math.ceil(UNCACHED_BYTES / size) if rows <= FEW_ROWS else 1
    copied = [first] + [first.copy() for _ in range(copies - 1)]
    peers = [w.peer(x) for w in copied]
    words = np.ones((copies, size // 8), np.int64)
    work = (size if rows == 1 else 2 * rows * n * K) / 1e9

    def ours(i: int) -> float:
        return work / _seconds(lambda: products.product(x, copied[i].packed))

    def limit(i: int) -> float:
        return read_gbs(words[i]) if rows == 1 else peak_gops(ISA)

    def theirs(i: int) -> float:
        return work / _seconds(peers[i] or (lambda: None))

    turn = [ours, limit] + ([theirs] if peers[0] else [])
    for function in turn:
        function(0)  # compiles
    seen: list[list[float]] = []
    start = time.perf_counter()
    while time.perf_counter() - start < seconds or len(seen) < 5:
        seen.append([function(len(seen) % copies) for function in turn])
    rates = [statistics.median(column) for column in zip(*seen, strict=True)]
    ratios = [statistics.median(rates[0] / rates[i] for rates in seen) for i in range(1, len(turn))]
    peer, of_peer = (rates[2], ratios[1]) if peers[0] else (None, None)
    return Figures(name, rows, "GB/s" if rows == 1 else "GOPS", rates[0], rates[1], peer, ratios[0], of_peer)


def _seconds(function: Product) -> float:
    start = clock()
    function()
    return clock() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--types", default=TYPES)
    parser.add_argument("--rows", default="1,8,32,256")
    parser.add_argument("--threads", type=int, default=threads.get_threads())
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    threads.set_threads(options.threads)
    figures = []
    if not options.json:
        print(f"up to {N} x {K} weights, {options.threads} threads, {ISA.name}; GB/s of packed weights")
        print(f"{'type':9}{'rows':>5}{'ours':>8}{'limit':>8}{'peer':>8}{'':>6}{'of limit':>10}{'of peer':>9}")
    for name in options.types.split(","):
        for rows in (int(part) for part in options.rows.split(",")):
            f = measured(name, rows, options.seconds)
            figures.append(f._asdict())
            if not options.json:
                peer, of_peer = (f"{v:.{d}f}" if v else "-" for v, d in ((f.peer, 1), (f.of_peer, 2)))
                print(f"{f.type:9}{f.rows:5}{f.ours:8.1f}{f.limit:8.1f}{peer:>8}{f.unit:>6}{f.of_limit:10.2f}"
                      f"{of_peer:>9}", flush=True)  # fmt: skip
    if options.json:
        print(json.dumps({"isa": ISA.name, "threads": options.threads, "figures": figures}, indent=1))


if __name__ == "__main__":
    main()
