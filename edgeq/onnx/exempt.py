"""Which layers go back to float so that a quality target holds: each one's own effect is measured first."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

# So many effects are measured at most; in a graph of more layers, neighbours are measured together.
_FEWEST_TRIALS, _MOST_TRIALS = 8, 96
_HOPELESS = 36  # times the allowed distance: an error six times as large does not go with half of the layers

Trial = Callable[[Sequence[str]], float]  # the closeness of the graph with these layers quantized


@dataclass
class Exemption:
    """What was found: the layers to quantize, those put back with what each costs alone, and the closeness."""

    layers: list[str]
    closeness: float
    before: float  # with all layers quantized
    exempted: dict[str, float] = field(default_factory=dict)  # layer → 1 - closeness with only it quantized


def exempt(
    layers: Sequence[str],
    trial: Trial,
    target: float,
    progress: Callable[[int, int], None] = lambda done, total: None,
    most: int | None = None,
    seconds: float = math.inf,
) -> Exemption:
    """Put back the layers of largest effect until ``target`` is reached, or all of them; as few as that takes.

    Where no more than ``most`` may be put back and that cannot do, none is: the closeness then misses the target.

    Where measuring each layer alone would take more than ``seconds``, by the time of the first trial, neighbours are
    measured together. The number is doubled until the target holds, then halved in, so a trial runs a dozen times and
    not once a layer.
    """
    started = time.monotonic()
    everything = trial(layers)
    took = max(time.monotonic() - started, 1e-3)
    if everything >= target or not layers:
        return Exemption(list(layers), everything, everything)
    limit = len(layers) if most is None else min(most, len(layers))
    if limit < len(layers) and (not limit or 1 - everything > _HOPELESS * (1 - target)):
        return Exemption(list(layers), everything, everything)
    groups = _groups(layers, int(max(_FEWEST_TRIALS, min(_MOST_TRIALS, seconds / took))))
    effects = {}
    for done, group in enumerate(groups, start=1):
        effects.update(dict.fromkeys(group, (1 - trial(group)) / len(group)))
        progress(done, len(groups))
    ordered = sorted(layers, key=lambda name: -effects[name])

    def without(count: int) -> float:
        return trial([name for name in layers if name not in set(ordered[:count])])

    count, found = _fewest(limit, without, target)
    if found < target and limit < len(layers):
        return Exemption(list(layers), everything, everything)
    gone = ordered[:count]
    kept = [name for name in layers if name not in set(gone)]
    return Exemption(kept, found, everything, {name: effects[name] for name in gone})


def _groups(layers: Sequence[str], most: int) -> list[list[str]]:
    size = -(-len(layers) // most)
    return [list(layers[start : start + size]) for start in range(0, len(layers), size)]


def _fewest(total: int, without: Callable[[int], float], target: float) -> tuple[int, float]:
    """(the least count that reaches the target, closeness there), if more is never worse; all where none does."""
    low, high, found = 0, 1, without(1)
    while found < target and high < total:
        low, high = high, min(2 * high, total)
        found = without(high)
    while found >= target and high - low > 1:
        middle = (low + high) // 2
        closeness = without(middle)
        if closeness >= target:
            high, found = middle, closeness
        else:
            low = middle
    return high, found
