"""Linux and Android: /proc and /sys, handed over as a function from path to text so that tests can play any machine."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable

from edgeq.devices.host.arm_parts import PARTS
from edgeq.devices.host.facts import CoreGroup, HostFacts

ReadText = Callable[[str], str | None]  # None where there is no such file

# The kernel's name of a feature → ours.
_X86 = {
    "avx2": "avx2",
    "fma": "fma",
    "f16c": "f16c",
    "avx512f": "avx512f",
    "avx512_vnni": "avx512vnni",
    "avx_vnni": "avxvnni",
    "amx_int8": "amx-int8",
    "amx_bf16": "amx-bf16",
}
_ARM = {
    "asimd": "neon",
    "asimddp": "dotprod",
    "i8mm": "i8mm",
    "bf16": "bf16",
    "sve": "sve",
    "sve2": "sve2",
    "sme": "sme",
}
_MOST_CPUS = 1024


def facts(read: ReadText) -> HostFacts:
    """What the files say; raises nothing: what is missing is left out."""
    blocks = _blocks(read("/proc/cpuinfo") or "")
    arm = any("CPU part" in block or "Features" in block for block in blocks)
    flags = set(" ".join(block.get("Features" if arm else "flags", "") for block in blocks).split())
    memory = re.search(r"^MemTotal:\s*(\d+) kB", read("/proc/meminfo") or "", re.M)
    return HostFacts(
        system="linux",
        machine="arm" if arm else "x86" if "flags" in (blocks[0] if blocks else {}) else "other",
        name=_name(blocks, read),
        isa=tuple(ours for theirs, ours in (_ARM if arm else _X86).items() if theirs in flags),
        groups=tuple(_arm_groups(blocks, read) if arm else _x86_groups(blocks, read)),
        memory=int(memory[1]) * 1024 if memory else 0,
        limit=_memory_limit(read),
        cpus=_cpu_limit(read),
        caches=_caches(read),
        portable=any(read(f"/sys/class/power_supply/BAT{i}/present") is not None for i in range(2)),
        virtual="hypervisor" in flags,
    )


def _blocks(text: str) -> list[dict[str, str]]:
    """One for each processor."""
    parts = (dict(_pairs(part)) for part in re.split(r"\n\s*\n", text))
    return [block for block in parts if "processor" in block][:_MOST_CPUS]


def _pairs(text: str) -> list[tuple[str, str]]:
    split = (line.partition(":") for line in text.splitlines() if ":" in line)
    return [(key.strip(), value.strip()) for key, _, value in split]


def _name(blocks: list[dict[str, str]], read: ReadText) -> str:
    model = (read("/sys/firmware/devicetree/base/model") or "").strip("\0 \n")
    for key in ("model name", "Model", "Hardware"):
        if not model and blocks and key in blocks[0]:
            model = blocks[0][key]
    return model or "this machine"


def _arm_groups(blocks: list[dict[str, str]], read: ReadText) -> list[CoreGroup]:
    """Cores by part number and clock."""
    counts: Counter[tuple[str, float]] = Counter()
    for block in blocks:
        key = _hex(block.get("CPU implementer")), _hex(block.get("CPU part"))
        name = PARTS[key][0] if key in PARTS else f"ARM core {key[0]:#x}/{key[1]:#x}"
        counts[name, _mhz(block["processor"], read)] += 1
    return [CoreGroup(name, count, mhz) for (name, mhz), count in counts.items()]


def _x86_groups(blocks: list[dict[str, str]], read: ReadText) -> list[CoreGroup]:
    """Physical cores, of hybrid CPUs by kind; a core's two threads count once."""
    small_cpus = _list(read("/sys/devices/cpu_atom/cpus") or "")
    seen: set[tuple[str, str]] = set()
    counts: Counter[tuple[bool, float]] = Counter()
    for block in blocks:
        number = block["processor"]
        core = block.get("physical id", "0"), block.get("core id", number)
        if core in seen:
            continue
        seen.add(core)
        counts[number.isdecimal() and int(number) in small_cpus, _mhz(number, read)] += 1
    clock = max((float(b["cpu MHz"]) for b in blocks if _is_number(b.get("cpu MHz", ""))), default=0.0)
    return [
        CoreGroup("efficiency" if small else "performance", count, mhz or clock, small)
        for (small, mhz), count in counts.items()
    ]


def _mhz(cpu: str, read: ReadText) -> float:
    text = (read(f"/sys/devices/system/cpu/cpu{cpu}/cpufreq/cpuinfo_max_freq") or "").strip()
    return int(text) / 1000 if text.isdecimal() else 0.0


def _list(text: str) -> set[int]:
    """The CPUs in a list such as 0-3,8."""
    found: set[int] = set()
    for part in text.strip().split(","):
        first, _, last = part.partition("-")
        if first.isdecimal() and (not last or last.isdecimal()):
            found |= set(range(int(first), min(int(last or first), _MOST_CPUS) + 1))
    return found


def _memory_limit(read: ReadText) -> int | None:
    """Of the control group, version 2 or 1; its "no limit" is a word or a huge number."""
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        text = (read(path) or "").strip()
        if text.isdecimal() and int(text) < 1 << 60:
            return int(text)
    return None


def _cpu_limit(read: ReadText) -> float:
    quota, _, period = (read("/sys/fs/cgroup/cpu.max") or "").strip().partition(" ")
    return int(quota) / int(period) if quota.isdecimal() and period.isdecimal() and int(period) else 0.0


def _caches(read: ReadText) -> dict[str, int]:
    """Bytes of the first CPU's caches, by level."""
    found = {}
    for i in range(8):
        base = f"/sys/devices/system/cpu/cpu0/cache/index{i}/"
        kind = (read(base + "type") or "").strip()
        size = re.fullmatch(r"(\d+)([KM])", (read(base + "size") or "").strip())
        if size and kind != "Instruction":
            level = (read(base + "level") or "").strip()
            found["L" + level + ("d" if kind == "Data" else "")] = int(size[1]) << (
                10 if size[2] == "K" else 20
            )
    return found


def _hex(text: str | None) -> int:
    try:
        return int(text or "0", 16)
    except ValueError:
        return 0


def _is_number(text: str) -> bool:
    return text.replace(".", "", 1).isdecimal()
