"""macOS: what ``sysctl -a`` prints."""

from __future__ import annotations

from edgeq.devices.host.facts import CoreGroup, HostFacts

_ARM = {
    "hw.optional.arm.FEAT_DotProd": "dotprod",
    "hw.optional.arm.FEAT_I8MM": "i8mm",
    "hw.optional.arm.FEAT_BF16": "bf16",
    "hw.optional.arm.FEAT_SME": "sme",
}
_X86 = {
    "hw.optional.avx2_0": "avx2",
    "hw.optional.fma": "fma",
    "hw.optional.f16c": "f16c",
    "hw.optional.avx512f": "avx512f",
    "hw.optional.avx512vnni": "avx512vnni",
}
_CACHES = {"hw.l1dcachesize": "L1d", "hw.l2cachesize": "L2", "hw.l3cachesize": "L3"}


def facts(text: str) -> HostFacts:
    """What the lines ``key: value`` say."""
    values = {}
    for line in text.splitlines():
        key, separator, value = line.partition(":")
        if separator:
            values[key.strip()] = value.strip()
    arm = values.get("hw.optional.arm64") == "1"
    isa = [ours for key, ours in (_ARM if arm else _X86).items() if values.get(key) == "1"]
    return HostFacts(
        system="macos",
        machine="arm" if arm else "x86",
        name=values.get("machdep.cpu.brand_string", "Mac"),
        isa=("neon", *isa) if arm else tuple(isa),
        groups=tuple(_groups(values)),
        memory=_count(values, "hw.memsize"),
        caches={ours: size for key, ours in _CACHES.items() if (size := _count(values, key))},
        portable="Book" in values.get("hw.model", ""),
        virtual=values.get("kern.hv_vmm_present") == "1",
    )


def _groups(values: dict[str, str]) -> list[CoreGroup]:
    """Apple's performance levels, the fastest first; Intel Macs have one."""
    mhz = _count(values, "hw.cpufrequency_max") / 1e6
    levels = _count(values, "hw.nperflevels") or 1
    found = []
    for level in range(min(levels, 4)):
        count = _count(values, f"hw.perflevel{level}.physicalcpu")
        if count:
            name = values.get(f"hw.perflevel{level}.name", "").lower() or "performance"
            found.append(CoreGroup(name, count, mhz, small=level > 0))
    return found or [CoreGroup("performance", _count(values, "hw.physicalcpu") or 1, mhz)]


def _count(values: dict[str, str], key: str) -> int:
    text = values.get(key, "")
    return int(text) if text.isdecimal() else 0
