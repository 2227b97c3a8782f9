"""How much faster one ONNX graph is than another, measured side by side."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from pathlib import Path

from edgeq.runtimes.onnxruntime import Feeds, OnnxSession

_ROUNDS = 7


def speed_ratio(ours: Path, float_path: Path, feeds: Sequence[Feeds], output: str, threads: int) -> float:
    """Median of float seconds over our seconds, the two graphs run in turn over the same feeds."""
    sessions = OnnxSession(float_path, threads), OnnxSession(ours, threads)
    ratios = []
    for round_ in range(_ROUNDS + 1):
        float_seconds, our_seconds = (_seconds(session, feeds, output) for session in sessions)
        if round_:  # the first round warms up
            ratios.append(float_seconds / our_seconds)
    return statistics.median(ratios)


def _seconds(session: OnnxSession, feeds: Sequence[Feeds], output: str) -> float:
    started = time.perf_counter()
    for one in feeds:
        session.run(one, [output])
    return time.perf_counter() - started
