"""Which instruction set the kernels may use on this machine."""

from __future__ import annotations

import functools
import os
from typing import Any

from edgeq.formats.errors import EdgeqError
from edgeq.kernels_cpu import isa as isas
from edgeq.kernels_cpu.isa import Isa


def instruction_set() -> Isa:
    """The best instruction set that Numba's target has, or the lower one named in ``EDGEQ_ISA``.

    Raises EdgeqError when ``EDGEQ_ISA`` names one that the target lacks: compiling it would abort the
    process.
    """
    features = target_features()
    wanted = os.environ.get("EDGEQ_ISA")
    if not wanted:
        return best(features)
    isa = isas.by_name(wanted)
    missing = sorted(isa.features - features)
    if missing:
        raise EdgeqError(
            f"EDGEQ_ISA={wanted}: this machine (or NUMBA_CPU_FEATURES) lacks {', '.join(missing)}"
        )
    return isa


def best(features: frozenset[str]) -> Isa:
    """The first instruction set, best first, whose features are all there."""
    return next(isa for isa in isas.ALL if isa.features <= features)


def target_features() -> frozenset[str]:
    """LLVM features that Numba compiles for: those in ``NUMBA_CPU_FEATURES``, else the host's.

    With ``NUMBA_CPU_NAME`` alone Numba still compiles for the host's features, and so it is here.
    """
    from numba.core import config

    numba: Any = config  # its attributes are set at run time
    if numba.CPU_FEATURES is not None:
        return enabled(numba.CPU_FEATURES)
    return frozenset(name for name in host_features() if numba.ENABLE_AVX or name[:3] != "avx")


@functools.cache  # LLVM takes a third of a millisecond, and every piece of a tensor asks
def host_features() -> frozenset[str]:
    """LLVM features of this CPU, whatever Numba compiles for; none where LLVM does not know the CPU."""
    import llvmlite.binding as llvm

    try:
        return frozenset(name for name, on in llvm.get_host_cpu_features().items() if on)
    except RuntimeError:
        return frozenset()


def enabled(features: str) -> frozenset[str]:
    """What a list such as ``+avx2,-fma`` leaves on; a later mention overrides an earlier one."""
    on: set[str] = set()
    for part in (part.strip() for part in features.split(",")):
        if part.startswith("-"):
            on.discard(part[1:])
        elif part:
            on.add(part.removeprefix("+"))
    return frozenset(on)
