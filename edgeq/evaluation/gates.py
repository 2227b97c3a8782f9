"""A measurement beside an earlier one: what became worse by more than chance.

Both are records of ``edgeq.evaluate`` in an edgeq.json, of the same file, engine and text.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeq.evaluation.budget import LIMITS, Limit, measured

_SIGMAS = 3.0  # of the difference's error, that chance may explain
_SLOWER, _MEMORY, _SIZE = 0.05, 0.05, 0.001  # what may be lost besides: the same work on another day


@dataclass(frozen=True)
class Compared:
    """A limit's matter in two records, and how much of a difference is allowed beyond chance, as a share."""

    limit: Limit
    slack: float = 0.0


_COMPARED = (
    Compared(LIMITS["max_perplexity_ratio"]),
    Compared(LIMITS["max_perplexity"]),
    Compared(LIMITS["max_kl_mean"]),
    Compared(LIMITS["min_top1"]),
    Compared(LIMITS["min_cosine"]),
    Compared(LIMITS["min_overlap"]),
    Compared(LIMITS["min_accuracy"]),
    Compared(LIMITS["max_p50"], _SLOWER),
    Compared(LIMITS["max_memory"], _MEMORY),
    Compared(LIMITS["max_size"], _SIZE),
)


def regressions(
    new: Sequence[Mapping[str, Any]], old: Sequence[Mapping[str, Any]], tolerance: float = _SLOWER
) -> list[str]:
    """A line for everything that is worse in ``new``, and for every record of ``old`` that has no match there.

    Quality is worse by more than three standard errors of the difference (of the two errors, as if the texts were not
    the same: on the same text chance is smaller, so this forgives rather than blames); where there is no error, by
    anything. Latency is worse where its median rose by more than ``tolerance`` and three errors of the medians, which
    are taken from the spread of the single tokens. Memory may grow by 5 %, the file by 0.1 %.
    """
    found, known = [], {_identity(record): record for record in new}
    for before in old:
        now = known.get(_identity(before))
        if now is None:
            found.append(
                f"{before.get('file')}: was measured in {before.get('engine')} before, and is not now"
            )
            continue
        lines = (_worse(compared, now, before, tolerance) for compared in _COMPARED)
        found += [line for line in lines if line]
    return found


def _identity(record: Mapping[str, Any]) -> tuple[Any, ...]:
    keys = ("file", "engine", "kv_type", "context", "scored", "threads")
    return Path(str(record.get("data"))).name, *(record.get(key) for key in keys)


def _worse(
    compared: Compared, now: Mapping[str, Any], before: Mapping[str, Any], tolerance: float
) -> str | None:
    limit = compared.limit
    new, old = measured(limit, now), measured(limit, before)
    if old is None:
        return None
    where = f"{now['file']}: {limit.what}"
    if new is None:
        return f"{where} was measured before, and is not now"
    slack = tolerance if limit.key == "max_p50" else compared.slack
    allowed = slack * abs(old) + _SIGMAS * math.hypot(_error(limit, now), _error(limit, before))
    lost = old - new if limit.is_least else new - old
    if lost <= allowed:
        return None
    side = "fell" if limit.is_least else "rose"
    return f"{where} {side} from {limit.unit(old)} to {limit.unit(new)}, by more than {limit.unit(allowed)}"


def _error(limit: Limit, record: Mapping[str, Any]) -> float:
    """Of quality its standard error; of a median that of Gaussian noise, 1.2533 deviations over √n."""
    part = record.get(limit.places[0][0]) or {}
    if limit.key == "max_p50":
        deviation = part.get("latency_spread", 0.0) / 0.6745  # half the middle half of a Gaussian
        return float(1.2533 * deviation / math.sqrt(max(1, part.get("latency_count", 1))))
    return float(part.get(limit.error, 0.0)) if limit.error else 0.0
