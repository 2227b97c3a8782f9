"""Linux machines played by the texts of their files: shortened, fields as the kernel writes them."""

from __future__ import annotations

import pytest

from edgeq.devices.host import linux, profile_of
from edgeq.devices.machine import cpu_of

_ARM = """processor\t: {n}
BogoMIPS\t: 108.00
Features\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x4
CPU part\t: {part}
CPU revision\t: 1
"""
PI_5 = {
    "/proc/cpuinfo": "\n".join(_ARM.format(n=n, part="0xd0b") for n in range(4))
    + "\nRevision\t: d04170\nModel\t\t: Raspberry Pi 5 Model B Rev 1.0\n",
    "/proc/meminfo": "MemTotal:        8257664 kB\nMemFree:         6523392 kB\n",
    "/sys/firmware/devicetree/base/model": "Raspberry Pi 5 Model B Rev 1.0\0",
    **{f"/sys/devices/system/cpu/cpu{n}/cpufreq/cpuinfo_max_freq": "2400000\n" for n in range(4)},
}
# A55s first, as on every RK3588.
RK3588 = {
    "/proc/cpuinfo": "\n".join(_ARM.format(n=n, part="0xd05" if n < 4 else "0xd0b") for n in range(8)),
    "/proc/meminfo": "MemTotal:       16218112 kB\n",
    "/sys/firmware/devicetree/base/model": "Orange Pi 5 Plus\0",
    **{
        f"/sys/devices/system/cpu/cpu{n}/cpufreq/cpuinfo_max_freq": f"{1800000 if n < 4 else 2304000}\n"
        for n in range(8)
    },
}
_X86 = """processor\t: {n}
vendor_id\t: GenuineIntel
cpu family\t: 6
model\t\t: 170
model name\t: {name}
cpu MHz\t\t: 4458.660
physical id\t: 0
siblings\t: 4
core id\t\t: {core}
flags\t\t: fpu vme sse sse2 ht pni ssse3 fma cx16 sse4_1 sse4_2 movbe popcnt aes xsave avx f16c rdrand avx2 {more}
"""
# Two performance cores with two threads each, two efficiency cores.
HYBRID = {
    "/proc/cpuinfo": "\n".join(
        _X86.format(n=n, core=core, name="Intel(R) Core(TM) Ultra 7 155H", more="avx_vnni")
        for n, core in enumerate((0, 0, 4, 4, 8, 9))
    ),
    "/proc/meminfo": "MemTotal:       32495180 kB\n",
    "/sys/devices/cpu_core/cpus": "0-3\n",
    "/sys/devices/cpu_atom/cpus": "4-5\n",
    **{
        f"/sys/devices/system/cpu/cpu{n}/cpufreq/cpuinfo_max_freq": f"{4800000 if n < 4 else 3800000}\n"
        for n in range(6)
    },
    "/sys/devices/system/cpu/cpu0/cache/index0/type": "Data\n",
    "/sys/devices/system/cpu/cpu0/cache/index0/level": "1\n",
    "/sys/devices/system/cpu/cpu0/cache/index0/size": "48K\n",
    "/sys/devices/system/cpu/cpu0/cache/index1/type": "Instruction\n",
    "/sys/devices/system/cpu/cpu0/cache/index1/level": "1\n",
    "/sys/devices/system/cpu/cpu0/cache/index1/size": "64K\n",
    "/sys/devices/system/cpu/cpu0/cache/index2/type": "Unified\n",
    "/sys/devices/system/cpu/cpu0/cache/index2/level": "3\n",
    "/sys/devices/system/cpu/cpu0/cache/index2/size": "24M\n",
    "/sys/class/power_supply/BAT0/present": "1\n",
}
XEON_IN_A_BOX = {
    "/proc/cpuinfo": "\n".join(
        _X86.format(
            n=n,
            core=n,
            name="Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz",
            more="hypervisor avx512f avx512_vnni amx_bf16 amx_tile amx_int8",
        )
        for n in range(8)
    ),
    "/proc/meminfo": "MemTotal:       32880000 kB\n",
    "/sys/fs/cgroup/memory.max": "4294967296\n",
    "/sys/fs/cgroup/cpu.max": "250000 100000\n",
}


def facts_of(files: dict[str, str]):
    return linux.facts(files.get)


def test_a_raspberry_pi():
    facts = facts_of(PI_5)
    assert facts.name == "Raspberry Pi 5 Model B Rev 1.0"
    assert facts.isa == ("neon", "dotprod")
    assert [(g.name, g.count, g.mhz) for g in facts.groups] == [("Cortex-A76", 4, 2400.0)]
    profile = profile_of(facts)
    assert profile.memory.gb == pytest.approx(8.46, abs=0.01)
    assert [c.core_class for c in profile.clusters] == ["arm-mid"]
    assert cpu_of(profile).threads == 4


def test_big_and_little_cores():
    profile = profile_of(facts_of(RK3588))
    assert [(c.name, c.core_class, c.count, c.ghz) for c in profile.clusters] == [
        ("Cortex-A55", "arm-small", 4, 1.8),
        ("Cortex-A76", "arm-mid", 4, 2.3),
    ]
    assert profile.threads == 4  # the small ones would hold the others up


def test_a_hybrid_laptop():
    facts = facts_of(HYBRID)
    assert [(g.count, g.mhz, g.small) for g in facts.groups] == [(2, 4800.0, False), (2, 3800.0, True)]
    assert facts.caches == {"L1d": 48 << 10, "L3": 24 << 20}
    profile = profile_of(facts)
    assert profile.kind == "laptop"
    assert [c.core_class for c in profile.clusters] == ["x86-avxvnni", "x86-small"]
    assert (profile.threads, profile.cores) == (2, 4)


def test_a_container_on_a_server():
    facts = facts_of(XEON_IN_A_BOX)
    assert facts.isa == ("avx2", "fma", "f16c", "avx512f", "avx512vnni", "amx-int8", "amx-bf16")
    assert (facts.limit, facts.cpus, facts.virtual) == (1 << 32, 2.5, True)
    profile = profile_of(facts)
    assert profile.kind == "server"
    assert profile.threads == 2
    assert {(x.app, round(x.gb, 2)) for x in profile.limits} == {("desktop", 4.29), ("server", 4.29)}
    assert profile.clusters[0].ghz == pytest.approx(4.46)  # no cpufreq in a guest: the clock of now


def test_no_limit_is_a_word_or_a_huge_number():
    assert facts_of({**PI_5, "/sys/fs/cgroup/memory.max": "max\n"}).limit is None
    v1 = "/sys/fs/cgroup/memory/memory.limit_in_bytes"
    assert facts_of({**PI_5, v1: "9223372036854771712\n"}).limit is None
    assert facts_of({**PI_5, v1: "536870912\n"}).limit == 1 << 29
    assert facts_of({**PI_5, "/sys/fs/cgroup/cpu.max": "max 100000\n"}).cpus == 0


def test_an_n100_has_small_cores_only():
    files = {**HYBRID, "/proc/cpuinfo": _X86.format(n=0, core=0, name="Intel(R) N100", more="avx_vnni")}
    del files["/sys/devices/cpu_atom/cpus"]
    assert profile_of(facts_of(files)).clusters[0].core_class == "x86-small"


@pytest.mark.parametrize(
    "text", ["", "\0\0", "processor : x\nflags : avx2\n", "processor : 0\nCPU part : what\n", "a" * 9999]
)
def test_broken_texts_are_left_out(text):
    facts = linux.facts({"/proc/cpuinfo": text, "/sys/devices/cpu_atom/cpus": "9-x,,5-"}.get)
    assert facts.memory == 0
