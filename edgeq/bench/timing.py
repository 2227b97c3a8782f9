"""Fair timing on a noisy machine: the sides take turns, and medians are compared."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence

Call = Callable[[], object]
Clock = Callable[[], float]


def median_seconds(
    calls: Sequence[Call | None], repeats: int, clock: Clock = time.perf_counter
) -> list[float | None]:
    """Median seconds of each call over ``repeats`` turns after one that is not counted; None stays None.

    ``time.thread_time`` is the clock for what one thread does while others load the machine.
    """
    times: list[list[float]] = [[] for _ in calls]
    for turn in range(repeats + 1):
        for call, seen in zip(calls, times, strict=True):
            if call is None:
                continue
            start = clock()
            call()
            if turn:  # the first one compiles, or loads what was compiled
                seen.append(clock() - start)
    return [statistics.median(seen) if seen else None for seen in times]
