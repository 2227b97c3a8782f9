"""What an operating system says about the machine it runs on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class CoreGroup:
    """Cores of one kind: their name, how many, highest clock in MHz (0: not said), whether they are the small ones."""

    name: str
    count: int
    mhz: float = 0.0
    small: bool = False


@dataclass(frozen=True)
class HostGpu:
    """A GPU as its driver names it; bytes of memory; GB/s by its bus, 0 where the driver does not say."""

    name: str
    memory: int
    gbs: float = 0.0


@dataclass(frozen=True)
class HostFacts:
    """``isa`` are instruction sets under this project's names; ``limit`` is the memory a control group allows.

    ``cpus`` is how many logical CPUs this process may use, 0 where nothing limits it; ``caches`` are bytes by level.
    """

    system: Literal["linux", "macos", "windows", "other"]
    machine: Literal["x86", "arm", "other"]
    name: str
    isa: tuple[str, ...]
    groups: tuple[CoreGroup, ...]
    memory: int
    limit: int | None = None
    cpus: float = 0.0
    caches: Mapping[str, int] = field(default_factory=dict)
    portable: bool = False  # it has a battery
    virtual: bool = False
    gpus: tuple[HostGpu, ...] = ()
