"""Measuring this machine: how fast it reads, and multiplies at best. What engines make of it: edgeq/bench/rates.py."""

from __future__ import annotations

import dataclasses
import datetime
import math
import time
from collections.abc import Callable

import numpy as np

from edgeq.devices.cpu import usable_cores
from edgeq.devices.detect import instruction_set
from edgeq.devices.fields import Source
from edgeq.devices.profile import Profile, Rates
from edgeq.devices.work import Product
from edgeq.kernels_cpu import threads
from edgeq.kernels_cpu.roofs import clock, peak_gops, read_gbs

SOURCE = "measured"
_READ_BYTES = 256 << 20
_SECONDS = 0.4  # of turns for each figure


@dataclasses.dataclass(frozen=True)
class Roofs:
    """GB/s read by all threads; 10⁹ int8 and float32 operations per second: the best of many turns."""

    threads: int
    read_gbs: float
    int8_gops: float
    float_gops: float


def measure(n_threads: int = 0) -> Roofs:
    """Measure with loops of our own, and NumPy's float32 product. Some seconds, most of them for compiling."""
    before = threads.get_threads()
    threads.set_threads(n_threads or usable_cores())
    try:
        isa, words = instruction_set(), np.ones(_READ_BYTES // 8, np.int64)
        matrix = np.ones((1024, 1024), np.float32)
        return Roofs(
            threads=threads.get_threads(),
            read_gbs=_best(lambda: read_gbs(words)),
            int8_gops=_best(lambda: peak_gops(isa)),
            float_gops=_best(lambda: 2 * 1024**3 / _seconds(lambda: matrix @ matrix) / 1e9),
        )
    finally:
        threads.set_threads(before)


def with_measured(profile: Profile, roofs: Roofs, rates: tuple[Rates, ...]) -> Profile:
    """The profile with what was measured. A model that read faster than our loop says how fast the machine reads."""
    models = (rate * Product(name, 1).nbytes for row in rates for name, rate in row.decode.items())
    read = math.ceil(10 * max(roofs.read_gbs, *models)) / 10
    today = datetime.date.today().isoformat()
    what = (
        f"edgeq devices detect --measure, {roofs.threads} threads: int8 peak {roofs.int8_gops:.0f} GOPS, "
        f"float32 {roofs.float_gops:.0f} GOPS"
    )
    return dataclasses.replace(
        profile,
        threads=roofs.threads,
        memory=dataclasses.replace(profile.memory, read_gbs=read, read_source=SOURCE, read_is="measured"),
        rates=rates,
        sources={**profile.sources, SOURCE: Source(what, today)},
    )


def _best(measured: Callable[[], float]) -> float:
    """The most of many turns, what the machine does while nothing disturbs it."""
    measured()  # compiles
    best, start = 0.0, time.perf_counter()
    while time.perf_counter() - start < _SECONDS:
        best = max(best, measured())
    return best


def _seconds(function: Callable[[], object]) -> float:
    began = clock()
    function()
    return clock() - began
