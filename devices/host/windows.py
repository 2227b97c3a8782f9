"""Windows: the registry's processor keys as ``reg query`` prints them, and GetLogicalProcessorInformationEx's records.

Source: Microsoft's documentation of SYSTEM_LOGICAL_PROCESSOR_INFORMATION_EX and IsProcessorFeaturePresent.
"""

from __future__ import annotations

import re
import struct
from collections import Counter
from collections.abc import Collection, Iterator, Mapping

from edgeq.devices.host.facts import CoreGroup, HostFacts

# PF_* numbers of IsProcessorFeaturePresent.
FEATURES = {
    19: "neon",  # PF_ARM_NEON_INSTRUCTIONS_AVAILABLE
    43: "dotprod",  # PF_ARM_V82_DP_INSTRUCTIONS_AVAILABLE
    66: "i8mm",  # PF_ARM_V82_I8MM_INSTRUCTIONS_AVAILABLE
    68: "bf16",  # PF_ARM_V86_BF16_INSTRUCTIONS_AVAILABLE
    46: "sve",  # PF_ARM_SVE_INSTRUCTIONS_AVAILABLE
    40: "avx2",  # PF_AVX2_INSTRUCTIONS_AVAILABLE
    41: "avx512f",  # PF_AVX512F_INSTRUCTIONS_AVAILABLE
}
_PROCESSOR_CORE, _CACHE = 0, 2  # LOGICAL_PROCESSOR_RELATIONSHIP
_DATA_CACHES = {0: "", 2: "d"}  # PROCESSOR_CACHE_TYPE: unified, data


def facts(
    registry: str,
    records: bytes,
    features: Collection[int],
    memory: int,
    machine: str,
    battery: bool = False,
    extra: Collection[str] = (),
) -> HostFacts:
    """``registry`` is the key of the first processor; ``extra`` are sets that Windows has no number for."""
    values = _registry(registry)
    clock = int(values.get("~MHz", "0x0"), 16)
    isa = [FEATURES[number] for number in sorted(FEATURES) if number in features]
    if "avx2" in isa:
        isa += ["fma", "f16c"]  # every CPU with AVX2 has both
    groups, caches = _records(records)
    largest = max(groups, default=0)
    return HostFacts(
        system="windows",
        machine="arm" if machine.lower() in ("arm64", "aarch64") else "x86",
        name=values.get("ProcessorNameString", "this machine").strip(),
        isa=tuple(dict.fromkeys([*isa, *extra])),
        groups=tuple(
            CoreGroup("performance" if level == largest else "efficiency", count, clock, level < largest)
            for level, count in sorted(groups.items(), reverse=True)
        ),
        memory=memory,
        caches=caches,
        portable=battery,
    )


def _registry(text: str) -> Mapping[str, str]:
    """The values in what ``reg query`` prints: name, type, value."""
    found = {}
    for line in text.splitlines():
        match = re.fullmatch(r"\s+(\S+)\s+REG_\w+\s+(.*)", line)
        if match:
            found[match[1]] = match[2]
    return found


def _records(buffer: bytes) -> tuple[Counter[int], dict[str, int]]:
    """Cores by efficiency class (higher is faster), and bytes of the largest cache of each level."""
    cores: Counter[int] = Counter()
    caches: dict[str, int] = {}
    for relation, body in _split(buffer):
        if relation == _PROCESSOR_CORE and len(body) >= 2:
            cores[body[1]] += 1  # BYTE Flags, BYTE EfficiencyClass
        elif relation == _CACHE and len(body) >= 12:
            level, _, _, size, kind = struct.unpack_from("<BBHII", body)
            if kind in _DATA_CACHES:
                name = f"L{level}{_DATA_CACHES[kind]}"
                caches[name] = max(size, caches.get(name, 0))
    return cores, caches


def _split(buffer: bytes) -> Iterator[tuple[int, bytes]]:
    """(relationship, what follows) of each record; a size that makes no sense ends it."""
    at = 0
    while at + 8 <= len(buffer):
        relation, size = struct.unpack_from("<II", buffer, at)
        if size < 8 or at + size > len(buffer):
            return
        yield relation, buffer[at + 8 : at + size]
        at += size
