"""Formats tried on this machine: files of zeros with a model's shapes, timed in turns in its runtime.

Models whose files would be too large to write for a trial are left to the prediction.
"""

from __future__ import annotations

import math
import shutil
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from edgeq.bench.child import Job
from edgeq.bench.worker import Worker, rounds
from edgeq.planning.formats import formats_of
from edgeq.planning.model import open_model
from edgeq.planning.zeros import write_zeros
from edgeq.runtimes.engines import EngineName

MOST = 6  # formats
BEHIND = 0.8  # of the fastest predicted speed: what is slower is not tried
_LEAST_SAME, _MOST_SAME = 0.02, 0.04  # slower than the fastest by up to this, as the rounds differ
_LEAST_ROUNDS, _ROUNDS, _SECONDS = 2, 7, 60.0
_PROMPT, _GEN = 8, 24
_MOST_BYTES = 6_000_000_000  # of all files


class Speed(NamedTuple):
    """Tokens per second of generating: the median of the rounds, and their standard error."""

    tokens_per_second: float
    error: float


def measured_speeds(
    model: Path,
    quants: Sequence[str],
    *,
    engine: EngineName,
    threads: int,
    cpu_time: bool = False,
    seconds: float = _SECONDS,
) -> dict[str, Speed]:
    """By quant, in rounds in which every format has its turn: two at least, then while ``seconds`` last.

    Empty where the files would take too much. ``cpu_time`` is as in ``edgeq.bench.child.Job``. Raises EdgeqError where
    the engine does not load a file.
    """
    planned = open_model(model)
    made = [one for one in formats_of(planned, tuple(quants)) if one.target == "gguf" and one.quant in quants]
    size = sum(one.file_bytes for one in made)
    if size > min(_MOST_BYTES, shutil.disk_usage(tempfile.gettempdir()).free // 2):
        return {}
    rates: dict[str, list[float]] = {quant: [] for quant in quants}
    with tempfile.TemporaryDirectory(prefix="edgeq-trial-") as folder, Worker() as worker:
        paths = {one.quant: Path(folder) / f"{one.quant}.gguf" for one in made}
        for one in made:
            write_zeros(planned, one.types, paths[one.quant])
        for _ in rounds(seconds, _LEAST_ROUNDS, _ROUNDS):
            for quant, path in paths.items():
                found = worker.measure(Job(str(path), engine, threads, _PROMPT, _GEN, 1, cpu_time))
                rates[quant].append(1 / statistics.median(found.steps))
    return {quant: _speed(taken) for quant, taken in rates.items()}


def as_fast(speeds: Mapping[str, Speed]) -> list[str]:
    """Those that are the fastest, as far as the rounds can tell: within 2 %, 4 % where they differ as much."""
    top = max(speeds.values())
    return [
        quant
        for quant, speed in speeds.items()
        if 1 - speed.tokens_per_second / top.tokens_per_second <= _margin(speed, top)
    ]


def _margin(speed: Speed, top: Speed) -> float:
    noise = math.hypot(speed.error, top.error) / top.tokens_per_second
    return min(max(noise, _LEAST_SAME), _MOST_SAME)


def _speed(taken: Sequence[float]) -> Speed:
    """A median's standard error is 1.25 times a mean's, of values that are spread as chance does."""
    return Speed(statistics.median(taken), 1.25 * statistics.stdev(taken) / len(taken) ** 0.5)
