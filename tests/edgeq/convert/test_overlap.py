"""Working on several pieces at once, writing in order."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from edgeq.convert.overlap import in_order

WORKERS = 3
IN_FLIGHT = WORKERS + 2


class Broken(Exception):
    pass


def numbers(n: int, broken_at: int = -1) -> Iterator[int]:
    for i in range(n):
        if i == broken_at:
            raise Broken
        yield i


def test_order_is_kept():
    written: list[int] = []

    def square(value: int) -> int:
        time.sleep(0.002 * (value % 3))
        return value * value

    in_order(numbers(40), square, written.append, WORKERS)
    assert written == [i * i for i in range(40)]


def test_nothing_to_do():
    written: list[int] = []
    in_order(numbers(0), lambda i: i, written.append, WORKERS)
    assert written == []


def test_work_is_done_by_the_workers_and_writing_by_the_caller():
    together = threading.Barrier(WORKERS, timeout=10)  # passes only when all of them work at once
    started, working, writing = [], set(), set()

    def work(i: int) -> int:
        working.add(threading.get_ident())
        together.wait()
        return i

    in_order(
        numbers(WORKERS),
        work,
        lambda i: writing.add(threading.get_ident()),
        WORKERS,
        lambda: started.append(threading.get_ident()),
    )
    assert writing == {threading.get_ident()}
    assert len(working) == WORKERS
    assert sorted(started) == sorted(working)


@pytest.mark.parametrize("at", [0, 1, 7])
def test_an_error_of_reading_is_raised(at: int):
    written: list[int] = []
    with pytest.raises(Broken):
        in_order(numbers(9, broken_at=at), lambda i: i, written.append, WORKERS)
    assert written == list(range(at))[: len(written)]


@pytest.mark.parametrize("at", [0, 1, 8])
@pytest.mark.parametrize("stage", ["work", "write"])
def test_the_first_error_in_order_is_raised(stage: str, at: int):
    written: list[int] = []

    def broken(i: int) -> int:
        if i >= at:
            raise Broken(i)
        return i

    work = broken if stage == "work" else int
    with pytest.raises(Broken) as raised:
        in_order(numbers(9), work, lambda i: written.append(broken(i) if stage == "write" else i), WORKERS)
    assert raised.value.args == (at,)
    assert written == list(range(at))  # nothing after what failed


def test_slow_writing_holds_reading_back():
    read, written = [], []
    most = 0

    def pieces() -> Iterator[int]:
        for i in range(20):
            read.append(i)
            yield i

    def write(i: int) -> None:
        nonlocal most
        time.sleep(0.005)
        most = max(most, len(read) - len(written))
        written.append(i)

    in_order(pieces(), lambda i: i, write, WORKERS)
    assert written == list(range(20))
    assert 1 < most <= IN_FLIGHT
