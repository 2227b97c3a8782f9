"""Fair timing on a noisy machine: the sides take turns, and medians are compared."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence

Call = Callable[[], object]


def median_seconds(calls: Sequence[Call | None], repeats: int) -> list[float | None]:
    """Median seconds of each call over ``repeats`` turns after one that is not counted; None stays None."""
    times: list[list[float]] = [[] for _ in calls]
    for turn in range(repeats + 1):
        for call, seen in zip(calls, times, strict=True):
            if call is None:
                continue
            start = time.perf_counter()
            call()
            if turn:  # the first one compiles, or loads what was compiled
                seen.append(time.perf_counter() - start)
    return [statistics.median(seen) if seen else None for seen in times]
