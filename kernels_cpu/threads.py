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
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from typing import Any

from edgeq.formats.errors import EdgeqError

# Below this many values per thread, a second thread costs more than it saves.
GRAIN_VALUES = 1 << 16

_lock = threading.Lock()
_here = threading.local()
_pool: ThreadPoolExecutor | None = None
_slots: SimpleQueue[None] | None = None  # one entry for each kernel that may start now
_threads: int | None = None


def get_threads() -> int:
    """Threads that the kernels use: set_threads', else NUMBA_NUM_THREADS', else the CPUs of this process."""
    return _threads if _threads is not None else _default_threads()


def set_threads(n: int) -> None:
    """Let kernels use n threads from the next call on; raises EdgeqError for n < 1."""
    global _pool, _slots, _threads
    if n < 1:
        raise EdgeqError(f"threads must be at least 1, not {n}")
    with _lock:
        _threads, old, _pool, _slots = n, _pool, None, None
    if old is not None:
        old.shutdown(wait=False)


def stay_on_this_thread() -> None:
    """From now on, kernels called by this thread run on it alone: for callers that bring threads of their own."""
    _here.alone = True


def run(kernel: Callable[..., Any], n: int, values_each: int, *arguments: Any) -> list[Any]:
    """Call ``kernel(first, last, *arguments)`` over ranges that cover range(n); the results in order.

    ``values_each`` is the work of one item, in values. Several Python threads may call this at once; then, too,
    no more than ``get_threads()`` kernels run, and the others wait.
    """
    ranges = _split(n, values_each)
    if len(ranges) <= 1:
        return [_in_turn(kernel, *own, *arguments) for own in ranges]
    futures = _submit(kernel, ranges[1:], arguments)
    results = [_in_turn(kernel, *ranges[0], *arguments)]
    return results + [future.result() for future in futures]


def together(n: int, kernel: Callable[..., Any], *arguments: Any) -> None:
    """Call ``kernel(thread, *arguments)`` here as thread 0, and as up to n − 1 others on threads of the pool.

    For kernels that share out their work themselves: helpers come in time or not at all, one thread would do.
    """
    helpers = [] if _stays_here() else _submit(kernel, [(i,) for i in range(1, n)], arguments)
    try:
        _in_turn(kernel, 0, *arguments)
    finally:  # nobody may be at work on what the caller will change next
        for helper in helpers:
            if not helper.cancel():
                helper.result()


def _default_threads() -> int:
    wanted = os.environ.get("NUMBA_NUM_THREADS", "")
    if wanted.isdigit() and int(wanted) > 0:
        return int(wanted)
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _stays_here() -> bool:
    """Whether this thread has no others to help it: it said so, or runs a kernel already."""
    return getattr(_here, "alone", False) or getattr(_here, "busy", False)


def _in_turn(kernel: Callable[..., Any], *arguments: Any) -> Any:
    """Call a kernel as soon as fewer than ``get_threads()`` run. It waits for nobody, so its turn comes."""
    if _stays_here():
        return kernel(*arguments)
    slots = _ready_slots()
    slots.get()
    _here.busy = True
    try:
        return kernel(*arguments)
    finally:
        _here.busy = False
        slots.put(None)


def _ready_slots() -> SimpleQueue[None]:
    global _slots
    slots = _slots
    if slots is None:
        with _lock:
            slots = _slots = _slots or _filled(get_threads())
    return slots


def _filled(n: int) -> SimpleQueue[None]:
    slots: SimpleQueue[None] = SimpleQueue()
    for _ in range(n):
        slots.put(None)
    return slots


def _split(n: int, values_each: int) -> list[tuple[int, ...]]:
    most = 1 if _stays_here() else get_threads()
    parts = max(1, min(most, n, n * values_each // GRAIN_VALUES))
    edges = [n * i // parts for i in range(parts + 1)]
    return [pair for pair in itertools.pairwise(edges) if pair[1] > pair[0]]


def _submit(
    kernel: Callable[..., Any], own: list[tuple[int, ...]], arguments: tuple[Any, ...]
) -> list[Future[Any]]:
    """On the pool, a call for each of ``own``, the arguments that are not the same for all."""
    global _pool
    if not own:
        return []
    with _lock:  # submitting under the lock keeps set_threads from shutting this pool down in between
        if _pool is None:
            _pool = ThreadPoolExecutor(max(1, get_threads() - 1), thread_name_prefix="edgeq-kernel")
        return [_pool.submit(_in_turn, kernel, *first, *arguments) for first in own]


def _forget_pool() -> None:
    """A forked child has none of the parent's threads, and perhaps its lock and slots taken."""
    global _pool, _slots, _lock
    _pool, _slots, _lock = None, None, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pool)
