"""NVIDIA's GPUs: by NVML where its Python package is installed (``pip install nvidia-ml-py``), else by nvidia-smi."""

from __future__ import annotations

import importlib
import shutil
import subprocess
from typing import Any

from edgeq.devices.host.facts import HostGpu

_QUERY = ("nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader,nounits")
_SECONDS = 10
_MEMORY_CLOCK = 2  # NVML_CLOCK_MEM


def gpus() -> tuple[HostGpu, ...]:
    """The GPUs that the driver shows; () without a driver."""
    try:
        nvml = importlib.import_module("pynvml")
    except ImportError:
        return _by_command()
    return by_nvml(nvml)


def by_nvml(nvml: Any) -> tuple[HostGpu, ...]:
    """The GPUs by NVML, bandwidth from bus width and memory clock (two transfers a cycle)."""
    try:
        nvml.nvmlInit()
    except nvml.NVMLError:
        return ()
    try:
        found = []
        for i in range(nvml.nvmlDeviceGetCount()):
            handle = nvml.nvmlDeviceGetHandleByIndex(i)
            name = nvml.nvmlDeviceGetName(handle)
            found.append(
                HostGpu(
                    name.decode() if isinstance(name, bytes) else str(name),
                    int(nvml.nvmlDeviceGetMemoryInfo(handle).total),
                    _bandwidth(nvml, handle),
                )
            )
        return tuple(found)
    except nvml.NVMLError:
        return ()
    finally:
        nvml.nvmlShutdown()


def _bandwidth(nvml: Any, handle: Any) -> float:
    try:
        megahertz = nvml.nvmlDeviceGetMaxClockInfo(handle, _MEMORY_CLOCK)
        return float(2 * megahertz * nvml.nvmlDeviceGetMemoryBusWidth(handle) / 8 / 1000)
    except nvml.NVMLError:
        return 0.0


def _by_command() -> tuple[HostGpu, ...]:
    if shutil.which(_QUERY[0]) is None:
        return ()
    try:
        done = subprocess.run(_QUERY, capture_output=True, text=True, timeout=_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ()
    return by_text(done.stdout) if done.returncode == 0 else ()


def by_text(text: str) -> tuple[HostGpu, ...]:
    """What nvidia-smi prints: a line for each GPU with its name and its memory in MiB."""
    found = []
    for line in text.splitlines():
        name, _, mebibytes = line.rpartition(",")
        if name.strip() and mebibytes.strip().isdecimal():
            found.append(HostGpu(name.strip(), int(mebibytes) << 20))
    return tuple(found)
