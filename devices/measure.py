"""Measuring this machine: how fast it reads, multiplies, and takes the codes of each block type apart."""

from __future__ import annotations

import dataclasses
import datetime
import statistics
import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from edgeq.devices.cpu import usable_cores
from edgeq.devices.detect import instruction_set
from edgeq.devices.fields import Source
from edgeq.devices.profile import Profile, Rates
from edgeq.formats.blocks import by_name
from edgeq.kernels_cpu import products, threads
from edgeq.kernels_cpu.roofs import clock, peak_gops, read_gbs

TYPES = ("Q4_K", "Q8_0", "Q6_K", "Q4_0", "Q5_K", "IQ4_XS", "Q3_K", "Q2_K")
_READ_BYTES = 256 << 20
COLUMNS = 2048
CACHED_ROWS = 1024  # of packed weights and for each thread: 0.5 to 2.3 MB, which a shared cache holds
REPEATS = 5  # of a product of one row, which takes some 200 µs
_MANY = 256  # rows of activations
_SECONDS = 0.4  # of turns for each figure
_TURNS = 12  # of reading, after each type; the median of their bests counts: some busy seconds do not decide
# What our engine reaches with many rows in a model, where rows are normed and quantized, of the product alone; and of
# NumPy's float32 peak with 16-bit weights. Fitted to six models on one AVX2 machine (benchmarks/prediction_here.py).
_IN_MODEL, _FLOATS = 0.82, 0.66
SOURCE = "measured"
Progress = Callable[[str, int, int], None]


@dataclasses.dataclass(frozen=True)
class Measured:
    """GB/s read by all threads; 10⁹ int8 and float32 operations per second; rates by block type as in a profile."""

    threads: int
    read_gbs: float
    int8_gops: float
    float_gops: float
    rates: Rates


def measure(
    n_threads: int = 0,
    progress: Progress = lambda stage, done, total: None,
    types: Sequence[str] = (),
) -> Measured:
    """Measure with our own kernels; the best of many turns. Less than a minute, most of it for compiling.

    ``types`` are block types, ``TYPES`` without any.
    """
    names = types or TYPES
    before = threads.get_threads()
    threads.set_threads(n_threads or usable_cores())
    try:
        decode, prefill, reads = {}, {}, []
        words = np.ones(_READ_BYTES // 8, np.int64)
        for done, name in enumerate(names):
            progress("measuring", done, len(names) + 1)
            decode[name], many = _rates_of(name)
            prefill[name] = round(many * _IN_MODEL, 1)
            reads.append(max(read_gbs(words) for _ in range(_TURNS)))
        progress("measuring", len(names), len(names) + 1)
        isa, count = instruction_set(), threads.get_threads()
        measured = Measured(
            threads=count,
            read_gbs=statistics.median(reads),
            int8_gops=max(peak_gops(isa) for _ in range(_TURNS)),
            float_gops=_float_gops(),
            rates=Rates("edgeq", count, decode, prefill, SOURCE),
        )
        measured = dataclasses.replace(
            measured,
            rates=dataclasses.replace(measured.rates, prefill=with_floats(prefill, measured, _FLOATS)),
        )
        progress("measuring", len(names) + 1, len(names) + 1)
        return measured
    finally:
        threads.set_threads(before)


def with_measured(profile: Profile, measured: Measured, extra: tuple[Rates, ...] = ()) -> Profile:
    """The profile with what was measured; ``extra`` are other engines' rates."""
    today = datetime.date.today().isoformat()
    what = (
        f"edgeq devices detect --measure, {measured.threads} threads: int8 peak {measured.int8_gops:.0f} GOPS, "
        f"float32 {measured.float_gops:.0f} GOPS"
    )
    return dataclasses.replace(
        profile,
        threads=measured.threads,
        memory=dataclasses.replace(
            profile.memory, read_gbs=round(measured.read_gbs, 1), read_source=SOURCE, read_is="measured"
        ),
        rates=(measured.rates, *extra),
        sources={**profile.sources, SOURCE: Source(what, today)},
    )


def with_floats(prefill: Mapping[str, float], measured: Measured, share: float) -> dict[str, float]:
    """Operations by type, those on 16-bit weights at a share of the float32 peak: widened once for many rows."""
    return {**prefill, "F16": round(measured.float_gops * share, 1)}


def any_rows(name: str, rows: int) -> np.ndarray:
    """Encoded rows of any bytes: products take as long whatever the weights say, and no encoder is compiled."""
    shape = rows, by_name(name).row_bytes(COLUMNS)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def best_rate(function: Callable[[], object], work: float, repeats: int = 1) -> float:
    """10⁹ of ``work`` per second, the best of many turns: what the machine does while nothing disturbs it."""
    function()  # compiles
    best, start = float("inf"), time.perf_counter()
    while time.perf_counter() - start < _SECONDS:
        began = clock()
        for _ in range(repeats):
            function()
        best = min(best, clock() - began)
    return work * repeats / best / 1e9


def _rates_of(name: str) -> tuple[float, float]:
    """10⁹ weights per second with one row of activations, 10⁹ operations with many; weights stay in cache."""
    random = np.random.default_rng(0)
    rows = any_rows(name, CACHED_ROWS * threads.get_threads())
    with np.errstate(all="ignore"):  # the bytes make any scales, infinite ones among them
        packed = products.pack(by_name(name).name, rows, COLUMNS, instruction_set())
        one = random.standard_normal((1, COLUMNS), np.float32)
        many = random.standard_normal((_MANY, COLUMNS), np.float32)
        weights = len(rows) * COLUMNS
        decode = best_rate(lambda: products.product(one, packed), weights, REPEATS)
        prefill = best_rate(lambda: products.product(many, packed), 2 * _MANY * weights)
    return round(decode, 2), prefill


def _float_gops() -> float:
    """NumPy's float32 matrix product: what a good library reaches."""
    matrix = np.ones((1024, 1024), np.float32)
    return best_rate(lambda: matrix @ matrix, 2 * 1024**3)
