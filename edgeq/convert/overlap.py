"""Reading, computing and writing at the same time: one piece ahead, one behind."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
U = TypeVar("U")

_WAITING = 2  # results that may wait to be written


def overlapped(pieces: Iterator[T], compute: Callable[[T], U], write: Callable[[U], None]) -> None:
    """``for piece in pieces: write(compute(piece))``, reading and writing in threads of their own.

    Computing stays on the caller's thread. Holds at most one piece read ahead and two results. An exception of any
    of the three ends it and is raised; nothing is written after a write that failed.
    """
    failed = False

    def write_unless_failed(value: U) -> None:
        nonlocal failed
        if failed:
            return
        try:
            write(value)
        except BaseException:
            failed = True
            raise

    with (
        ThreadPoolExecutor(1, thread_name_prefix="edgeq-read") as reader,
        ThreadPoolExecutor(1, thread_name_prefix="edgeq-write") as writer,
    ):
        writing: deque[Future[None]] = deque()
        ahead = reader.submit(next, pieces, None)
        while (piece := ahead.result()) is not None:
            ahead = reader.submit(next, pieces, None)
            while len(writing) >= _WAITING:
                writing.popleft().result()
            writing.append(writer.submit(write_unless_failed, compute(piece)))
        while writing:
            writing.popleft().result()
