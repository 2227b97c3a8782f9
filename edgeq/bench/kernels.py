"""Integer products: one row and many, beside what this machine can do at best and what ggml and ONNX Runtime do.

With up to 8 rows the weights come from memory: as many copies as the caches cannot hold take turns. Ours, the
peers and the machine's own limit (reading for one row, else int8 arithmetic on registers) take turns within
milliseconds, and what counts are the medians of the ratios of neighbours: other load on the machine, and memory
that has a fast and a slow state, fall on all of them.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from edgeq.bench.product_peers import Bytes, Floats, Product, ggml_product, onnxruntime_product
from edgeq.bench.timing import Call
from edgeq.devices.detect import instruction_set
from edgeq.formats.blocks import by_name
from edgeq.kernels_cpu import products
from edgeq.kernels_cpu.encode import encode
from edgeq.kernels_cpu.roofs import clock, peak_gops, read_gbs

TYPES = (
    "Q4_K",
    "Q8_0",
    "Q6_K",
    "Q5_K",
    "Q4_0",
    "Q4_1",
    "Q5_0",
    "Q5_1",
    "Q2_K",
    "Q3_K",
    "IQ4_NL",
    "IQ4_XS",
    "int4x32",
    "int4x128",
)
N, K = 8192, 2048
UNCACHED_BYTES = 1 << 27
FEW_ROWS = 8  # up to these, weights come from memory
DISTINCT_ROWS = 256  # encoded; repeated to N


@dataclass(frozen=True)
class Options:
    """What is measured, and for how long each; ``int4x32`` is ONNX's MatMulNBits in blocks of 32."""

    types: Sequence[str] = TYPES
    rows: Sequence[int] = (1, 8, 32, 256)
    seconds: float = 3.0


class Weights(NamedTuple):
    """One matrix as a peer has it, and packed."""

    name: str
    encoded: Bytes
    scales: Floats | None  # of ONNX
    packed: products.Packed

    def copy(self) -> Weights:
        data = products.empty(self.packed.layout.format, self.packed.n, K, instruction_set()).data
        data[:] = self.packed.data
        data.flags.writeable = False
        return self._replace(encoded=self.encoded.copy(), packed=self.packed._replace(data=data))

    def peer(self, x: Floats) -> Product | None:
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
        return Weights(name, blob, scales, products.pack_blocked(blob, scales, None, K, 4, instruction_set()))
    values = rng.standard_normal((DISTINCT_ROWS, K), np.float32) * np.float32(0.02)
    rows = np.tile(encode(name, values, isa=instruction_set()), (n // DISTINCT_ROWS, 1))
    return Weights(by_name(name).name, rows, None, products.pack(name, rows, K, instruction_set()))


@dataclass(frozen=True)
class Figures:
    """Medians: ours, the limit's and the peer's rate, and how ours compares."""

    type_name: str
    rows: int
    unit: str
    ours: float
    limit: float
    peer: float | None
    of_limit: float
    of_peer: float | None


def measure(options: Options) -> Iterator[Figures]:
    """Each type with each number of rows."""
    for name in options.types:
        for rows in options.rows:
            yield measured(name, rows, options.seconds)


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
        return read_gbs(words[i]) if rows == 1 else peak_gops(instruction_set())

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


def _seconds(function: Call) -> float:
    start = clock()
    function()
    return clock() - start
