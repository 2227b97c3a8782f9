"""Samples of one shape are run together where that changes nothing: few large products cost less than many small ones.

A graph is asked before it is believed: two samples are run one by one and together, and what is watched must be the
same. Not asked are graphs with subgraphs, whose branches may depend on all samples of a run, and inputs whose first
axis is of fixed length.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeq.errors import EdgeqError
from edgeq.runtimes.onnxruntime import Feeds, OnnxSession

_WINDOW = 128  # samples among which those of one shape are looked for
_WINDOW_BYTES = 16 << 20
_RUN_BYTES = 8 << 20  # of watched values in one run
_CLOSE = 1e-4  # of the largest magnitude: products of other shapes round otherwise
_LARGEST = 1e8  # masks are larger
_Group = list[tuple[int, Feeds]]
Value = NDArray[np.float32] | list[NDArray[np.float32]]  # a list: of each round of a loop


@dataclass(frozen=True)
class Run:
    """What one or more samples gave: their numbers from 0, and feeds and values one after the other along axis 0."""

    numbers: list[int]
    feeds: Feeds
    values: Mapping[str, Value]


class Runner:
    """Runs a session for ``outputs``, by the names that the values have for the caller."""

    def __init__(self, session: OnnxSession, outputs: Mapping[str, str], plain: bool) -> None:
        """``plain``: the graph has no subgraphs."""
        self._session = session
        self._outputs = outputs
        grows = all(shape and not isinstance(shape[0], int) for shape in session.inputs.values())
        self._together: bool | None = None if plain and grows else False  # None: not tried yet
        self._growth = 1.0  # the most bytes watched for one byte fed

    def runs(self, samples: Iterable[Feeds]) -> Iterator[Run]:
        """All samples, those of one shape together; only a window of them is in memory."""
        for window in self._windows(samples):
            groups: dict[object, _Group] = {}
            for number, feeds in window:
                groups.setdefault(_shape(number, feeds), []).append((number, feeds))
            for group in groups.values():
                yield from self._group(group)

    def _windows(self, samples: Iterable[Feeds]) -> Iterator[_Group]:
        window: _Group = []
        size = 0
        for number, feeds in enumerate(samples):
            window.append((number, feeds))
            size += _bytes(feeds)
            if self._together is False or len(window) == _WINDOW or size >= _WINDOW_BYTES:
                yield window
                window, size = [], 0
        yield window

    def _group(self, group: _Group) -> Iterator[Run]:
        if self._together is None and len(group) > 1:
            first = self._one(group[:1])
            yield first
            if self._most(group[0][1]) > 1:
                second = self._one(group[1:2])
                self._together = self._agrees(group[:2], [first, second])
                yield second
            group = group[1 if self._together is None else 2 :]
        while group:
            run = self._tried(group[: self._most(group[0][1]) if self._together else 1])
            if run is None:
                self._together = False
                continue
            yield run
            group = group[len(run.numbers) :]

    def _most(self, feeds: Feeds) -> int:
        """How many samples like this one fit into a run."""
        return max(1, int(_RUN_BYTES / self._growth / max(1, _bytes(feeds))))

    def _tried(self, group: _Group) -> Run | None:
        """Their run; None where they must be run one by one, after all."""
        if len(group) == 1:
            return self._one(group)
        try:
            run = self._one(group)
        except EdgeqError:
            return None
        fits = all(_rows(value) and _rows(value) % len(group) == 0 for value in run.values.values())
        return run if fits else None

    def _one(self, group: _Group) -> Run:
        feeds = group[0][1]
        if len(group) > 1:
            feeds = {name: np.concatenate([one[name] for _, one in group]) for name in feeds}
        found = self._session.run(feeds, list(self._outputs.values()))
        values = dict(zip(self._outputs, found, strict=True))
        self._growth = max(self._growth, _bytes(values) / max(1, _bytes(feeds)))
        return Run([number for number, _ in group], feeds, values)

    def _agrees(self, group: _Group, alone: list[Run]) -> bool:
        run = self._tried(group)
        return run is not None and all(
            all(_rows(one.values[name]) for one in alone)
            and _same(np.concatenate([one.values[name] for one in alone]), np.asarray(value))
            for name, value in run.values.items()
        )


def _shape(number: int, feeds: Feeds) -> object:
    """What samples that may be run together have in common."""
    if not feeds or any(array.ndim == 0 for array in feeds.values()):
        return number
    if len({len(array) for array in feeds.values()}) > 1:
        return number
    return tuple((name, array.dtype.str, array.shape) for name, array in sorted(feeds.items()))


def _rows(value: Value) -> int:
    """Along axis 0; 0 for what has none, and for the rounds of a loop."""
    return len(value) if isinstance(value, np.ndarray) and value.ndim else 0


def _bytes(values: Mapping[str, Value]) -> int:
    return sum(
        sum(one.nbytes for one in value) if isinstance(value, list) else value.nbytes
        for value in values.values()
    )


def _same(a: NDArray[np.float32], b: NDArray[np.float32]) -> bool:
    """Within rounding, where neither is a mask."""
    if a.shape != b.shape:
        return False
    plain = np.abs(a) < _LARGEST
    largest = float(np.abs(a[plain]).max(initial=0))
    return np.array_equal(plain, np.abs(b) < _LARGEST) and np.allclose(
        a[plain], b[plain], rtol=0, atol=_CLOSE * largest
    )
