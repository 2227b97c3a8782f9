"""Products of large float32 matrices by NumPy's BLAS, on this package's own threads.

OpenBLAS's threads wait for the next product in a loop. Between products come kernels and small factors here, so that
waiting took a third of all processor time, and the time of the kernels where no core was left over. So while these
products run each BLAS call has one thread, and their rows are shared out as those of any kernel.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from threadpoolctl import ThreadpoolController

from edgeq.formats.blocks.base import Floats
from edgeq.kernels_cpu import threads

_SHARE = 2048  # columns of a piece: what is subtracted lies in memory of its own first
_EACH = 16  # multiply-adds that take as long as a value of other kernels

_controller = functools.cache(ThreadpoolController)
_lock = threading.Lock()
_users = 0
_limit: Any = None


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Until the last of all blocks ends, BLAS calls of this process run on the thread that calls them.

    The number of BLAS's threads is the process's, so the first block sets it and the last one gives it back.
    """
    global _users, _limit
    with _lock:
        if _users == 0:
            _limit = _controller().limit(limits=1, user_api="blas")
        _users += 1
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if _users == 0:
                _limit.restore_original_limits()


def subtract(out: Floats, left: Floats, right: Floats) -> None:
    """out −= left · right, float32 ``[m, n]``, ``[m, k]``, ``[k, n]``; within ``one_blas_thread``."""
    threads.run(_subtract, len(out), max(1, right.size // _EACH), out, left, right)


def multiply_in_place(out: Floats, right: Floats) -> None:
    """out = out · right, float32 ``[m, n]`` and ``[n, n]``; within ``one_blas_thread``."""
    threads.run(_multiply, len(out), max(1, right.size // _EACH), out, right)


def _subtract(first: int, last: int, out: Floats, left: Floats, right: Floats) -> None:
    for begin in range(0, out.shape[1], _SHARE):
        columns = slice(begin, begin + _SHARE)
        out[first:last, columns] -= left[first:last] @ right[:, columns]


def _multiply(first: int, last: int, out: Floats, right: Floats) -> None:
    out[first:last] = out[first:last] @ right
