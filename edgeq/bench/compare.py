"""Whether a later benchmark is slower than an earlier one, beyond what its turns differ anyway.

The turns of both sides are ranked together. Slower or faster is said where chance would order them so in less than one
of twenty cases (Mann and Whitney, 1947, exact, two-sided) and the medians differ by more than a tolerance, which stands
for what differs between two runs and within none: another process's memory, the room's temperature.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import comb
from typing import Any, Literal

from edgeq.errors import InputError

CHANCE = 0.05
TOLERANCE = 0.03
LEAST_TURNS = 4  # on both sides: with three, chance orders them fully in one of ten cases
_SAMPLED = ("prefill", "decode")  # seconds of each turn
_SINGLE = ("load", "peak_memory")  # measured once in a process: told, never judged
_KEY = ("model", "engine", "threads", "prompt", "gen")
Key = tuple[str, str, int, int, int]
Verdict = Literal["slower", "faster", "same", "too few turns", "told"]


@dataclass(frozen=True)
class Comparison:
    """One figure of one combination: medians (seconds, bytes), the ratio later / earlier, and how likely by chance."""

    key: Key  # model, engine, threads, prompt, gen
    figure: str
    before: float
    after: float
    chance: float | None
    verdict: Verdict

    @property
    def ratio(self) -> float:
        return self.after / self.before if self.before else 1.0


def compare(
    before: Mapping[str, Any], after: Mapping[str, Any], tolerance: float = TOLERANCE
) -> list[Comparison]:
    """Every combination that both records have; raises InputError where they have none in common."""
    earlier = {_key(result): result for result in before["results"] if result.get("measured")}
    found = [
        comparison
        for result in after["results"]
        if result.get("measured") and _key(result) in earlier
        for comparison in _figures(earlier[_key(result)], result, tolerance)
    ]
    if not found:
        raise InputError(
            "the two results have nothing in common; measure the same model, engine, threads and lengths"
        )
    return found


def _key(result: Mapping[str, Any]) -> Key:
    model, engine, threads, prompt, gen = (result.get(name) for name in _KEY)
    return str(model), str(engine), int(threads or 0), int(prompt or 0), int(gen or 0)


def _figures(before: Mapping[str, Any], after: Mapping[str, Any], tolerance: float) -> Iterator[Comparison]:
    old, new = before["measured"], after["measured"]
    for figure in _SAMPLED:
        if old.get(figure) and new.get(figure):
            yield _judged(after, figure, old[figure], new[figure], tolerance)
    for figure in _SINGLE:
        if old.get(figure) and new.get(figure):
            yield Comparison(_key(after), figure, old[figure], new[figure], None, "told")


def _judged(
    result: Mapping[str, Any], figure: str, before: Sequence[float], after: Sequence[float], tolerance: float
) -> Comparison:
    medians = statistics.median(before), statistics.median(after)
    chance = rank_chance(before, after)
    verdict: Verdict = "same"
    if min(len(before), len(after)) < LEAST_TURNS:
        verdict = "too few turns"
    elif chance < CHANCE and abs(medians[1] / medians[0] - 1) > tolerance:
        verdict = "slower" if medians[1] > medians[0] else "faster"
    return Comparison(_key(result), figure, medians[0], medians[1], chance, verdict)


def rank_chance(first: Sequence[float], second: Sequence[float]) -> float:
    """Two-sided probability that samples of one distribution are ordered as unevenly as these; ties count half."""
    larger = sum((b > a) + 0.5 * (b == a) for a in first for b in second)
    pairs = len(first) * len(second)
    least = int(min(larger, pairs - larger) + 0.5)  # rounded up: a tie makes it less sure
    ways = _ways(len(first), len(second))
    return min(1.0, 2 * sum(ways[: least + 1]) / comb(len(first) + len(second), len(first)))


def _ways(m: int, n: int) -> list[int]:
    """In how many orders of m and n values so many pairs (the index) stand the wrong way round.

    The coefficients of the Gaussian binomial: each factor (1 − qⁿ⁺ⁱ) / (1 − qⁱ) is multiplied in.
    """
    size = m * n + 1
    counts = [1] + [0] * (size - 1)
    for i in range(1, m + 1):
        for at in range(size - 1, n + i - 1, -1):
            counts[at] -= counts[at - n - i]
        for at in range(i, size):
            counts[at] += counts[at - i]
    return counts
