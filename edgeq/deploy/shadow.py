"""A second model that answers the same requests unseen; only how far it differs is written down.

A line of the log is JSON: ``time``, ``model`` and ``shadow``, ``seconds`` of both, ``same``, ``agreement`` (of texts
the share of the longer one before the first difference, of vectors and tensors the least cosine), ``lengths``,
``failure``. There is no text in it, and no key.
"""

from __future__ import annotations

import json
import math
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeq.deploy.canary import bucket
from edgeq.deploy.failures import ModelFailure
from edgeq.errors import UsageError

_WAITING = 64  # requests; more are left out rather than kept in memory
_SALT = "edgeq shadow"


@dataclass(frozen=True)
class Shadow:
    """A bundle that answers unseen.

    Attributes:
        bundle: the folder.
        log: the file that lines are appended to.
        share: of the keys, 0 to 1.
    """

    bundle: Path
    log: Path
    share: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise UsageError(f"a shadow's share of {self.share:g} is not within 0 and 1")

    def takes(self, key: str) -> bool:
        """Whether the key's requests are answered twice."""
        return bucket(key, _SALT) < self.share


@dataclass(frozen=True)
class Seen:
    """A request that was answered: by whom, how, and in how many seconds."""

    request: Mapping[str, Any]
    model: str
    value: Any
    seconds: float


class ShadowRuns:
    """Answers again in a thread of its own, and logs; nobody waits for it."""

    def __init__(self, shadow: Shadow, name: str, answer: Callable[[Mapping[str, Any]], Any]) -> None:
        self._shadow, self._name, self._answer = shadow, name, answer
        self._waiting: queue.Queue[Seen | None] = queue.Queue(_WAITING)
        self.left_out = 0
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def add(self, seen: Seen) -> None:
        """Queue a request; where too many wait it is left out and counted."""
        try:
            self._waiting.put_nowait(seen)
        except queue.Full:
            self.left_out += 1

    def flush(self) -> None:
        """Wait until all that was queued is logged."""
        self._waiting.join()

    def close(self) -> None:
        """Log what is queued, and end."""
        self._waiting.put(None)
        self._thread.join()

    def _run(self) -> None:
        while True:
            seen = self._waiting.get()
            try:
                if seen is None:
                    return
                self._log(self._line(seen))
            finally:
                self._waiting.task_done()

    def _line(self, seen: Seen) -> dict[str, Any]:
        started, failure, value = time.monotonic(), None, None
        try:
            value = self._answer(seen.request)
        except ModelFailure as error:
            failure = error.kind.value
        seconds = time.monotonic() - started
        line: dict[str, Any] = {"time": round(time.time(), 3), "model": seen.model, "shadow": self._name}
        line |= {"seconds": [round(seen.seconds, 4), round(seconds, 4)], "failure": failure}
        return line | (divergence(seen.value, value) if failure is None else {})

    def _log(self, line: Mapping[str, Any]) -> None:
        try:
            with self._shadow.log.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        except OSError:  # a full disk must not end the runs, which nobody waits for
            self.left_out += 1


def divergence(ours: Any, theirs: Any) -> dict[str, Any]:
    """How far two answers differ, in numbers only."""
    found: dict[str, Any] = {"same": ours == theirs}
    if isinstance(ours, str) and isinstance(theirs, str):
        longest = max(len(ours), len(theirs))
        differ = (i for i, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b)
        agreement = next(differ, min(len(ours), len(theirs))) / longest if longest else 1.0
        return found | {"agreement": round(agreement, 6), "lengths": [len(ours), len(theirs)]}
    mine, other = _rows(ours), _rows(theirs)
    if mine is not None and other is not None and len(mine) == len(other):
        cosines = [_cosine(a, b) for a, b in zip(mine, other, strict=True)]
        return found | {"agreement": round(min(cosines, default=1.0), 6), "lengths": [len(mine), len(other)]}
    return found


def _rows(value: Any) -> list[list[float]] | None:
    """Vectors as they are, tensors by name and labels' probabilities as a vector each; None for what is no numbers."""
    parts = list(value.values()) if isinstance(value, dict) else value
    try:
        return [list(_numbers(part)) for part in parts] if isinstance(parts, list) else None
    except TypeError:
        return None


def _numbers(value: Any) -> Iterator[float]:
    """The numbers in nested lists and dicts; raises TypeError for anything else."""
    if isinstance(value, list | dict):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _numbers(part)
    elif isinstance(value, float | int):
        yield value
    else:
        raise TypeError


def _cosine(a: Sequence[float], b: Sequence[float]) -> float:
    if len(a) != len(b):
        return 0.0
    norm = math.hypot(*a) * math.hypot(*b)
    return sum(x * y for x, y in zip(a, b, strict=True)) / norm if norm else 0.0
