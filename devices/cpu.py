"""This machine's CPU, as far as an export needs to know it."""

from __future__ import annotations

import os
import platform

from edgeq.devices.detect import host_features
from edgeq.devices.system import physical_cores


def usable_cores() -> int:
    """Cores to run on where the user named none: physical ones, no more than this process may use."""
    physical = physical_cores()
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else physical
    return max(1, min(physical, allowed))


def saturates_int8() -> bool:
    """Whether u8 × s8 products are summed in a saturating int16 here: x86 without VNNI."""
    if platform.machine().lower() not in ("x86_64", "amd64", "i386", "i686"):
        return False
    return not {"avx512vnni", "avxvnni"} & host_features()
