"""Reading, computing and writing at the same time."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from edgeq.convert.overlap import overlapped

AHEAD = 4  # one piece read, one computed, and what waits to be written


class Broken(Exception):
    pass


def numbers(n: int, broken_at: int = -1) -> Iterator[int]:
    for i in range(n):
        if i == broken_at:
            raise Broken
        yield i


def test_order_is_kept():
    written: list[int] = []

    def write(value: int) -> None:
        time.sleep(0.002 * (value % 3))
        written.append(value)

    overlapped(numbers(40), lambda i: i * i, write)
    assert written == [i * i for i in range(40)]


def test_nothing_to_do():
    written: list[int] = []
    overlapped(numbers(0), lambda i: i, written.append)
    assert written == []


def test_computing_stays_on_the_callers_thread():
    threads: dict[str, set[int]] = {"read": set(), "compute": set(), "write": set()}

    def pieces() -> Iterator[int]:
        for i in range(5):
            threads["read"].add(threading.get_ident())
            yield i

    def compute(i: int) -> int:
        threads["compute"].add(threading.get_ident())
        return i

    overlapped(pieces(), compute, lambda i: threads["write"].add(threading.get_ident()))
    assert threads["compute"] == {threading.get_ident()}
    assert [len(seen) for seen in threads.values()] == [1, 1, 1]
    assert len(set.union(*threads.values())) == 3


@pytest.mark.parametrize("at", [0, 1, 7])
def test_an_error_of_reading_is_raised(at: int):
    written: list[int] = []
    with pytest.raises(Broken):
        overlapped(numbers(9, broken_at=at), lambda i: i, written.append)
    assert written == list(range(at))


@pytest.mark.parametrize("at", [0, 1, 8])
@pytest.mark.parametrize("stage", ["compute", "write"])
def test_an_error_of_computing_or_writing_is_raised(stage: str, at: int):
    written: list[int] = []

    def broken(i: int) -> int:
        if i == at:
            raise Broken
        return i

    compute = broken if stage == "compute" else int
    with pytest.raises(Broken):
        overlapped(numbers(9), compute, lambda i: written.append(broken(i) if stage == "write" else i))
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

    overlapped(pieces(), lambda i: i, write)
    assert written == list(range(20))
    assert 1 < most <= AHEAD
