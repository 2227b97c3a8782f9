"""Working on several pieces at once and writing what comes of them in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

T = TypeVar("T")
U = TypeVar("U")

_WAITING = 2  # results that may wait to be written, beside those being worked on


def in_order(
    pieces: Iterable[T],
    work: Callable[[T], U],
    write: Callable[[U], None],
    workers: int,
    initializer: Callable[[], None] = lambda: None,
) -> None:
    """``for piece in pieces: write(work(piece))`` with ``work`` on that many threads, each started by ``initializer``.

    ``pieces`` is read and ``write`` called on the caller's thread, in order. Memory holds ``workers + 2`` results at
    most. The first exception, in the order of the pieces, ends it and is raised; nothing is written after it.
    """
    with ThreadPoolExecutor(workers, "edgeq-piece", initializer) as pool:
        waiting: deque[Future[U]] = deque()
        rest = iter(pieces)
        try:
            for piece in islice(rest, workers + _WAITING):
                waiting.append(pool.submit(work, piece))
            while waiting:
                write(waiting.popleft().result())
                for piece in islice(rest, 1):
                    waiting.append(pool.submit(work, piece))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
