"""Compiling the kernels of a run before it starts, in two processes where that saves time.

Numba compiles one function at a time in a process. What is not in the disk cache is shared out to this process
and a child, which finds the cache where this one does; ``python -m edgeq.kernels_cpu.ahead`` is that
child. If it fails, this process compiles that share when it needs it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from edgeq.formats.blocks import by_name
from edgeq.formats.effort import Effort
from edgeq.kernels_cpu import decode, encode, refine, threads
from edgeq.kernels_cpu.isa import Isa
from edgeq.kernels_cpu.isa import by_name as isa_by_name
from edgeq.kernels_cpu.registry import kernels
from edgeq.kernels_cpu.views import read_only

_COLUMNS = 256  # whole blocks of every type
_SECONDS = 3  # what most kernels take to compile here, and those that take longer
_LONG = {
    ("encode", "Q4_K"): 6,
    ("encode", "Q5_K"): 6,
    ("encode", "Q2_K"): 6,
    ("refine", "Q4_K"): 8,
    ("refine", "Q5_K"): 8,
    ("refine", "Q2_K"): 8,
    ("decode", "F16"): 1,
}


class Need(NamedTuple):
    """A kernel that a run calls: ``decode``, ``encode`` or ``refine`` of a block type, with importance or without."""

    work: str
    type_name: str
    weighted: bool = False


def compile_ahead(needs: Iterable[Need], isa: Isa) -> None:
    """Compile what is not in the disk cache, unless one process does that as quickly as two."""
    missing = sorted(filter(_is_missing, set(needs)), key=_seconds, reverse=True)
    if len(missing) < 2 or threads.get_threads() < 2:
        return
    own, others = _shares(missing)
    child = _started(isa, others)
    try:
        for need in own:
            _call(need, isa)
        if child is not None:
            child.wait()
    finally:
        if child is not None:
            child.kill()  # nothing happens if it has ended
            child.wait()


def _started(isa: Isa, needs: list[Need]) -> subprocess.Popen[bytes] | None:
    """A child that compiles these, with this process's modules (``-P``: not those of the user's folder)."""
    texts = [f"{need.work}:{need.type_name}:{int(need.weighted)}" for need in needs]
    nothing = subprocess.DEVNULL
    try:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", __name__, isa.name, *texts],
            stdin=nothing,
            stdout=nothing,
            stderr=nothing,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
    except OSError:
        return None


def _seconds(need: Need) -> tuple[int, Need]:
    """Its time to compile; the rest settles the order of equal ones."""
    return _LONG.get((need.work, need.type_name), _SECONDS), need


def _shares(needs: list[Need]) -> tuple[list[Need], list[Need]]:
    """The longest first, each to whom has less to do."""
    shares: tuple[list[Need], list[Need]] = [], []
    seconds = [0, 1]  # the child has to start
    for need in needs:
        which = int(seconds[1] < seconds[0])
        shares[which].append(need)
        seconds[which] += _seconds(need)[0]
    return shares


def _kernel(need: Need) -> Any:
    """The function to compile; None where the plain codec serves."""
    packages: dict[str, ModuleType] = {"decode": decode, "encode": encode, "refine": refine}
    module = kernels(packages[need.work].__name__, need.type_name)
    if module is None:
        return None
    if need.work == "encode":
        return (
            module.encode_rows if need.weighted and hasattr(module, "encode_rows") else module.encode_blocks
        )
    return module.decode_blocks if need.work == "decode" else module.refine_rows


def _is_missing(need: Need) -> bool:
    """Is there nothing of it in the disk cache, though there could be?"""
    file = getattr(getattr(_kernel(need), "_cache", None), "_cache_file", None)
    return file is not None and not file._load_index()


def _call(need: Need, isa: Isa) -> None:
    """Compile the kernel by calling it on a row of zeros, with arrays of the types that a run has."""
    values = np.zeros((1, _COLUMNS), np.float32)
    importance = np.ones(_COLUMNS, np.float32) if need.weighted else None
    stored = np.zeros((1, by_name(need.type_name).row_bytes(_COLUMNS)), np.uint8)
    calls: dict[str, Callable[[], object]] = {
        "decode": lambda: decode.decode(need.type_name, stored, _COLUMNS, isa),
        "encode": lambda: encode.encode(need.type_name, values, importance, isa),
        "refine": lambda: refine.refine(
            need.type_name, read_only(values), importance, stored, isa, Effort.normal
        ),
    }
    calls[need.work]()


def _main(isa_name: str, *texts: str) -> None:
    for text in texts:
        work, type_name, weighted = text.split(":")
        _call(Need(work, type_name, weighted == "1"), isa_by_name(isa_name))


if __name__ == "__main__":
    _main(*sys.argv[1:])
