"""Where a candidate loses: its divergence by the place in the context, and by how rare the token is that comes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeq.evaluation.kl_statistics import KlStatistics

_POSITIONS = 4  # slices of equal width
_COUNTS = (1, 3, 10, 30, 100, 300, 1000)  # where slices of tokens begin, by how often they occur in the text


def slices(statistics: KlStatistics, text: NDArray[np.int64] | list[int]) -> dict[str, list[dict[str, Any]]]:
    """``by_position`` and ``by_frequency``, each a list of slices with ``from``, ``to`` and their numbers.

    Positions are those of the model's context, in equal parts. A token's frequency is how often it occurs in ``text``,
    the tokens that were read; slices that no token falls into are left out.
    """
    positions, following = statistics.positions, statistics.following
    edges = np.unique(np.linspace(positions.min(), positions.max() + 1, _POSITIONS + 1).astype(int))
    counts = np.bincount(np.asarray(text, np.int64))
    often = counts[following] if len(following) else following
    ends = [*_COUNTS[1:], int(often.max()) + 1]
    return {
        "by_position": _cut(statistics, positions, edges[:-1].tolist(), edges[1:].tolist()),
        "by_frequency": _cut(statistics, often, list(_COUNTS), ends),
    }


def _cut(
    statistics: KlStatistics, values: NDArray[Any], starts: list[int], ends: list[int]
) -> list[dict[str, Any]]:
    found = []
    for start, end in zip(starts, ends, strict=True):
        chosen = (values >= start) & (values < end)
        if chosen.any():
            found.append({"from": start, "to": end - 1, **statistics.slice(chosen)})
    return found
