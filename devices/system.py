"""What psutil says of this machine, and the standard library where psutil is not installed (a benchmark's zip)."""

from __future__ import annotations

import os
from types import ModuleType

psutil: ModuleType | None
try:
    import psutil
except ImportError:  # the zip of ``edgeq bench --pack`` asks for numpy and numba only
    psutil = None


def physical_cores() -> int:
    """Cores without their second threads; with those where psutil is not there to tell."""
    count = os.cpu_count() if psutil is None else psutil.cpu_count(logical=False)
    return count or 1


def total_memory() -> int:
    """Bytes of memory, 0 where nothing says."""
    if psutil is not None:
        return int(psutil.virtual_memory().total)
    if hasattr(os, "sysconf") and {"SC_PAGE_SIZE", "SC_PHYS_PAGES"} <= os.sysconf_names.keys():
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return 0


def has_battery() -> bool:
    """Whether there is one, as far as psutil says."""
    return psutil is not None and psutil.sensors_battery() is not None


def load_average() -> float | None:
    """Threads that ran or wanted to, over the last minute; None where nothing says."""
    if psutil is not None:
        return float(psutil.getloadavg()[0])
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def is_busy(load: float, cores: int) -> bool:
    """Whether a load average leaves too few cores to measure on."""
    return load >= max(1.0, cores / 2)
