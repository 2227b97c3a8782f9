"""Asking this machine's operating system."""

from __future__ import annotations

import ctypes
import dataclasses
import importlib.util
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

from edgeq.devices.host import linux, macos, nvidia, windows
from edgeq.devices.host.facts import CoreGroup, HostFacts
from edgeq.devices.system import has_battery, physical_cores, total_memory

_SECONDS = 10
_MOST_BYTES = 8 << 20  # of a file under /proc or /sys
_REGISTRY = r"HKLM\HARDWARE\DESCRIPTION\System\CentralProcessor\0"
_ALL_RELATIONS = 0xFFFF


def host_facts() -> HostFacts:
    """What the operating system says of this machine, and NVIDIA's driver of its GPUs."""
    if sys.platform == "linux":
        facts = linux.facts(_read_text)
    elif sys.platform == "darwin":
        facts = macos.facts(_output("sysctl", "-a"))
    elif sys.platform == "win32":
        facts = _windows()
    else:
        facts = HostFacts("other", "other", platform.machine(), (), (), 0)
    if not facts.groups:
        facts = dataclasses.replace(facts, groups=(CoreGroup("performance", physical_cores()),))
    if not facts.memory:
        facts = dataclasses.replace(facts, memory=total_memory())
    return dataclasses.replace(facts, gpus=nvidia.gpus())


def _read_text(path: str) -> str | None:
    try:
        with Path(path).open("rb") as file:
            return file.read(_MOST_BYTES).decode("utf-8", "replace")
    except OSError:
        return None


def _output(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout


def onnxruntime_providers() -> tuple[str, ...]:
    """The execution providers of ONNX Runtime as it is installed; () without it."""
    if importlib.util.find_spec("onnxruntime") is None:
        return ()
    import onnxruntime

    return tuple(onnxruntime.get_available_providers())


def _windows() -> HostFacts:
    from edgeq.devices.detect import host_features

    kernel: Any = ctypes.windll.kernel32  # type: ignore[attr-defined, unused-ignore]
    size = ctypes.c_uint32(0)
    kernel.GetLogicalProcessorInformationEx(_ALL_RELATIONS, None, ctypes.byref(size))
    buffer = ctypes.create_string_buffer(size.value)
    if not kernel.GetLogicalProcessorInformationEx(_ALL_RELATIONS, buffer, ctypes.byref(size)):
        size.value = 0
    features = [number for number in windows.FEATURES if kernel.IsProcessorFeaturePresent(number)]
    return windows.facts(
        registry=_output("reg", "query", _REGISTRY),
        records=buffer.raw[: size.value],
        features=features,
        memory=total_memory(),
        machine=platform.machine(),
        battery=has_battery(),
        extra=sorted({"avx512vnni", "avxvnni"} & host_features()),
    )
