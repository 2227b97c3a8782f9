"""Whether a later benchmark is slower than an earlier one, beyond what its turns differ anyway.

The turns of both sides are ranked together, which gives how likely chance orders them so (Mann and Whitney, 1947,
exact, two-sided). Many figures are looked at, so the limit of what is called slower or faster falls with their number
(Benjamini and Hochberg, 1995): of two runs of the same thing something is said in one of twenty cases, however many
figures there are. The medians must also differ by more than a tolerance, which stands for what differs between two runs
and within none: another process's memory, the room's temperature.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import comb
from typing import Any, Literal

from edgeq.devices.system import is_busy
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
        for comparison in _figures(earlier[_key(result)], result)
    ]
    if not found:
        raise InputError(
            "the two results have nothing in common; measure the same model, engine, threads and lengths"
        )
    limit = least_likely([one.chance for one in found if one.verdict == "same" and one.chance is not None])
    return [_judged(one, limit, tolerance) for one in found]


def busy_with(machine: Mapping[str, Any]) -> str:
    """What a record says of other work when it was begun: nothing where the load left cores free, or is unknown."""
    load, cores = machine.get("load_average"), machine.get("cores")
    if not isinstance(load, list) or not load or not isinstance(cores, list):
        return ""
    count = sum(core.get("count") or 0 for core in cores if isinstance(core, dict))
    return f"load average {load[0]:.1f}, {count} cores" if count and is_busy(load[0], count) else ""


def least_likely(chances: Sequence[float]) -> float:
    """The limit up to which chances are too small to be chance, so that of those one in twenty is; 0 for none."""
    ranked = enumerate(sorted(chances), 1)
    return max((chance for rank, chance in ranked if chance <= CHANCE * rank / len(chances)), default=0.0)


def _key(result: Mapping[str, Any]) -> Key:
    model, engine, threads, prompt, gen = (result.get(name) for name in _KEY)
    return str(model), str(engine), int(threads or 0), int(prompt or 0), int(gen or 0)


def _figures(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[Comparison]:
    old, new = before["measured"], after["measured"]
    for figure in _SAMPLED:
        if old.get(figure) and new.get(figure):
            medians = statistics.median(old[figure]), statistics.median(new[figure])
            enough = min(len(old[figure]), len(new[figure])) >= LEAST_TURNS
            chance = rank_chance(old[figure], new[figure])
            yield Comparison(_key(after), figure, *medians, chance, "same" if enough else "too few turns")
    for figure in _SINGLE:
        if old.get(figure) and new.get(figure):
            yield Comparison(_key(after), figure, old[figure], new[figure], None, "told")


def _judged(one: Comparison, limit: float, tolerance: float) -> Comparison:
    """Slower or faster, where the figure has turns enough and differs by enough."""
    if one.verdict != "same" or one.chance is None or one.chance > limit or abs(one.ratio - 1) <= tolerance:
        return one
    return dataclasses.replace(one, verdict="slower" if one.after > one.before else "faster")


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
