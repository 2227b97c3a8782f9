"""What is being compiled: told on a terminal, since it takes seconds, and counted for ``edgeq warmup``.

Numba broadcasts an event for each kernel that it compiles, and none for one that it loads from the disk cache
(source: ``numba.core.event``). A kernel compiles those that it calls; only the outermost counts.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from numba.core import event

_EVENT = "numba:compile"
_PACKAGE = __package__


class Purpose(NamedTuple):
    """What a kernel is compiled for; empty where it is the same for all."""

    type_name: str = ""  # of the weights: Q4_K
    instruction_set: str = ""


class Compiled(NamedTuple):
    """A kernel that was compiled, with all that it calls."""

    kernel: str
    purpose: Purpose
    seconds: float


@dataclass
class Seen:
    """What happened while one watched."""

    compiled: list[Compiled] = field(default_factory=list)
    loaded: int = 0  # kernels from the disk cache


_kernels: list[Any] = []  # all dispatchers of this package


def known(dispatcher: Any) -> None:
    """Count this kernel's loads from now on; ``jit`` calls it for each one."""
    _kernels.append(dispatcher)


@contextmanager
def watched() -> Iterator[Seen]:
    """What is compiled and loaded, on all threads, until the block ends."""
    seen, before = Seen(), _loads()
    listener = _Collector(seen.compiled)
    event.register(_EVENT, listener)
    try:
        yield seen
    finally:
        event.unregister(_EVENT, listener)
        seen.loaded = _loads() - before


def _loads() -> int:
    return sum(sum(dispatcher.stats.cache_hits.values()) for dispatcher in _kernels)


def _purpose(arguments: tuple[Any, ...]) -> Purpose:
    """The types of layouts and instruction sets say it themselves."""
    found = [argument.purpose for argument in arguments if hasattr(argument, "purpose")]
    return max(found, default=Purpose())  # the one with a type of weights


class _Outermost(event.Listener):
    """Knows which compilation of this package's is within another one. Numba compiles one at a time."""

    def __init__(self) -> None:
        self._depth = 0
        self._start = 0.0

    def on_start(self, event: Any) -> None:
        if self._depth == 0:
            self._start = time.perf_counter()
            if event.data["dispatcher"].py_func.__module__.startswith(f"{_PACKAGE}."):
                self.begins(_purpose(event.data["args"]))
        self._depth += 1

    def on_end(self, event: Any) -> None:
        self._depth -= 1
        function = event.data["dispatcher"].py_func
        if self._depth == 0 and function.__module__.startswith(f"{_PACKAGE}."):
            seconds = time.perf_counter() - self._start
            self.ended(Compiled(function.__qualname__, _purpose(event.data["args"]), seconds))

    def begins(self, purpose: Purpose) -> None:
        """A kernel is to be compiled."""

    def ended(self, compiled: Compiled) -> None:
        """It was."""


class _Collector(_Outermost):
    def __init__(self, compiled: list[Compiled]) -> None:
        super().__init__()
        self._compiled = compiled

    def ended(self, compiled: Compiled) -> None:
        self._compiled.append(compiled)


class _Announcer(_Outermost):
    """One line on a terminal for each purpose."""

    def __init__(self) -> None:
        super().__init__()
        self._told: set[Purpose] = set()

    def begins(self, purpose: Purpose) -> None:
        if purpose in self._told or sys.stderr is None or not sys.stderr.isatty():
            return
        self._told.add(purpose)
        what = " on ".join(part for part in purpose if part)
        hint = "; `edgeq warmup MODEL` does it ahead" if purpose.type_name else ""
        print(f"edgeq: compiling kernels{what and f' for {what}'}, once{hint}", file=sys.stderr)


event.register(_EVENT, _Announcer())
