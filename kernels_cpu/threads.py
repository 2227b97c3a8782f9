"""Threads for the kernels: ranges of rows on a pool of Python threads, since compiled kernels hold no GIL.

Not Numba's ``prange``: its ``workqueue`` layer aborts the process when two Python threads call kernels at
once, its OpenMP layer ends a child that was forked, and every ``parallel=True`` kernel costs a second or
two more to compile. A call through the pool costs about 30 µs, so small work stays on the caller.
"""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from edgeq.formats.errors import EdgeqError

# Below this many values per thread, a second thread costs more than it saves.
GRAIN_VALUES = 1 << 16

_lock = threading.Lock()
_here = threading.local()
_pool: ThreadPoolExecutor | None = None
_threads: int | None = None


def get_threads() -> int:
    """Threads that the kernels use: set_threads', else NUMBA_NUM_THREADS', else the CPUs of this process."""
    return _threads if _threads is not None else _default_threads()


def set_threads(n: int) -> None:
    """Let kernels use n threads from the next call on; raises EdgeqError for n < 1."""
    global _pool, _threads
    if n < 1:
        raise EdgeqError(f"threads must be at least 1, not {n}")
    with _lock:
        _threads, old, _pool = n, _pool, None
    if old is not None:
        old.shutdown(wait=False)


def stay_on_this_thread() -> None:
    """From now on, kernels called by this thread run on it alone: for callers that bring threads of their own."""
    _here.alone = True


def run(kernel: Callable[..., Any], n: int, values_each: int, *arguments: Any) -> list[Any]:
    """Call ``kernel(first, last, *arguments)`` over ranges that cover range(n); the results in order.

    ``values_each`` is the work of one item, in values. Several Python threads may call this at once.
    """
    ranges = _split(n, values_each)
    if len(ranges) <= 1:
        return [kernel(first, last, *arguments) for first, last in ranges]
    futures = _submit(kernel, ranges[1:], arguments)
    results = [kernel(*ranges[0], *arguments)]
    return results + [future.result() for future in futures]


def _default_threads() -> int:
    wanted = os.environ.get("NUMBA_NUM_THREADS", "")
    if wanted.isdigit() and int(wanted) > 0:
        return int(wanted)
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _split(n: int, values_each: int) -> list[tuple[int, int]]:
    most = 1 if getattr(_here, "alone", False) else get_threads()
    parts = max(1, min(most, n, n * values_each // GRAIN_VALUES))
    edges = [n * i // parts for i in range(parts + 1)]
    return [(first, last) for first, last in itertools.pairwise(edges) if last > first]


def _submit(
    kernel: Callable[..., Any], ranges: list[tuple[int, int]], arguments: tuple[Any, ...]
) -> list[Any]:
    global _pool
    with _lock:  # submitting under the lock keeps set_threads from shutting this pool down in between
        if _pool is None:
            _pool = ThreadPoolExecutor(max(1, get_threads() - 1), thread_name_prefix="edgeq-kernel")
        return [_pool.submit(kernel, first, last, *arguments) for first, last in ranges]


def _forget_pool() -> None:
    """A forked child has none of the parent's threads, and perhaps its lock held."""
    global _pool, _lock
    _pool, _lock = None, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pool)
