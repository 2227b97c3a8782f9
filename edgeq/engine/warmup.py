"""Compiles the kernels that a model needs, before they are needed: by running it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from edgeq.engine.decoders import open_decoder
from edgeq.kernels_cpu.compiling import Compiled, Purpose, watched

_MANY = 9  # tokens at once: more than a tile has, and no whole number of tiles


class Line(NamedTuple):
    """Kernels that were compiled for a type of weights on an instruction set."""

    type_name: str  # empty for kernels without weights
    instruction_set: str  # empty for those that are the same on all
    kernels: int
    seconds: float


class Warmup(NamedTuple):
    lines: list[Line]
    loaded: int  # kernels that were compiled earlier, and loaded now
    seconds: float  # the model's loading and running, too


def warm_up(path: Path, threads: int, keep_packed: bool = False) -> Warmup:
    """Open a model as ``edgeq run`` does, and read one token and several; raises EdgeqError.

    With ``keep_packed``, the packed weights of a GGUF file are kept in the user's cache for the next start.
    """
    start = time.perf_counter()
    with watched() as seen:
        _run(path, threads, keep_packed)
    return Warmup(_lines(seen.compiled), seen.loaded, time.perf_counter() - start)


def _run(path: Path, threads: int, keep_packed: bool) -> None:
    with open_decoder(path, "embedded", threads, _MANY + 1, keep_packed=keep_packed) as opened:
        opened.decoder.feed([0])
        opened.decoder.feed([0] * _MANY)


def _lines(compiled: Sequence[Compiled]) -> list[Line]:
    by_purpose: dict[Purpose, list[float]] = {}
    for kernel in compiled:
        by_purpose.setdefault(kernel.purpose, []).append(kernel.seconds)
    return [Line(*purpose, len(seconds), sum(seconds)) for purpose, seconds in sorted(by_purpose.items())]
