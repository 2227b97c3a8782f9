"""How much faster one ONNX graph is than another, measured side by side."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgeq.runtimes.onnxruntime import Feeds, OnnxSession

_ROUNDS = 7


@dataclass(frozen=True)
class TimedPair:
    """Median seconds of one run of each graph, and the median of the paired ratios float / ours."""

    ratio: float
    ours: float
    reference: float


def speed_ratio(
    ours: Path,
    float_path: Path,
    feeds: Sequence[Feeds],
    output: str,
    threads: int,
    config: Mapping[str, str] | None = None,
) -> float:
    """Median of float seconds over our seconds: ``timed_pair`` without the seconds."""
    return timed_pair(ours, float_path, feeds, output, threads, config).ratio


def timed_pair(
    ours: Path,
    float_path: Path,
    feeds: Sequence[Feeds],
    output: str,
    threads: int,
    config: Mapping[str, str] | None = None,
) -> TimedPair:
    """The two graphs run in turn over the same feeds; ``config`` holds the session entries of ours."""
    sessions = OnnxSession(float_path, threads), OnnxSession(ours, threads, config)
    seconds = []
    for round_ in range(_ROUNDS + 1):
        pair = tuple(_seconds(session, feeds, output) / len(feeds) for session in sessions)
        if round_:  # the first round warms up
            seconds.append(pair)
    return TimedPair(
        statistics.median(reference / ours for reference, ours in seconds),
        statistics.median(ours for _, ours in seconds),
        statistics.median(reference for reference, _ in seconds),
    )


def _seconds(session: OnnxSession, feeds: Sequence[Feeds], output: str) -> float:
    started = time.perf_counter()
    for one in feeds:
        session.run(one, [output])
    return time.perf_counter() - started
