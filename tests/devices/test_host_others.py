"""Macs, Windows machines and NVIDIA's GPUs played by what their systems print."""

from __future__ import annotations

import struct
from types import SimpleNamespace

import pytest

from edgeq.devices.host import macos, nvidia, profile_of, this_machine, windows
from edgeq.devices.host.facts import HostFacts, HostGpu
from edgeq.devices.machine import cpu_of
from edgeq.devices.profile import read_profile
from edgeq.devices.to_toml import profile_toml

M2_PRO = """hw.model: Mac14,9
hw.memsize: 17179869184
hw.physicalcpu: 10
hw.nperflevels: 2
hw.perflevel0.physicalcpu: 6
hw.perflevel0.name: Performance
hw.perflevel1.physicalcpu: 4
hw.perflevel1.name: Efficiency
hw.l1dcachesize: 65536
hw.l2cachesize: 4194304
hw.optional.arm64: 1
hw.optional.arm.FEAT_DotProd: 1
hw.optional.arm.FEAT_I8MM: 1
hw.optional.arm.FEAT_BF16: 1
hw.optional.arm.FEAT_SME: 0
machdep.cpu.brand_string: Apple M2 Pro
"""
INTEL_MAC = """hw.model: MacBookPro15,1
hw.memsize: 34359738368
hw.physicalcpu: 6
hw.cpufrequency_max: 2600000000
hw.optional.avx2_0: 1
hw.optional.fma: 1
hw.optional.f16c: 1
hw.optional.avx512f: 0
machdep.cpu.brand_string: Intel(R) Core(TM) i7-8850H CPU @ 2.60GHz
"""
REGISTRY = r"""
HKEY_LOCAL_MACHINE\HARDWARE\DESCRIPTION\System\CentralProcessor\0
    Component Information    REG_BINARY    00000000000000000000000000000000
    Identifier    REG_SZ    Intel64 Family 6 Model 183 Stepping 1
    ProcessorNameString    REG_SZ    13th Gen Intel(R) Core(TM) i9-13900K
    VendorIdentifier    REG_SZ    GenuineIntel
    ~MHz    REG_DWORD    0xbb8
"""


def core(efficiency: int) -> bytes:
    """A PROCESSOR_RELATIONSHIP of 48 bytes after its relationship (0) and size: flags, efficiency class."""
    return struct.pack("<IIBB38x", 0, 48, 1, efficiency)


def cache(level: int, size: int, kind: int) -> bytes:
    """A CACHE_RELATIONSHIP: level, associativity, line size, size, type."""
    return struct.pack("<IIBBHII36x", 2, 56, level, 8, 64, size, kind)


def test_a_mac():
    facts = macos.facts(M2_PRO)
    assert facts.isa == ("neon", "dotprod", "i8mm", "bf16")
    assert [(g.name, g.count, g.small) for g in facts.groups] == [
        ("performance", 6, False),
        ("efficiency", 4, True),
    ]
    assert facts.caches == {"L1d": 65536, "L2": 4194304}
    profile = profile_of(facts)
    assert [c.core_class for c in profile.clusters] == ["arm-wide-i8mm", "arm-mid-i8mm"]
    assert (profile.name, profile.threads, profile.memory.gb) == ("Apple M2 Pro", 6, 17.18)


def test_an_intel_mac():
    profile = profile_of(macos.facts(INTEL_MAC))
    assert (profile.kind, profile.cores, profile.clusters[0].ghz) == ("laptop", 6, 2.6)
    assert profile.clusters[0].core_class == "x86-avx2"


def test_a_windows_machine():
    records = b"".join(
        [core(1)] * 8 + [core(0)] * 16 + [cache(1, 49152, 2), cache(1, 32768, 1), cache(3, 36 << 20, 0)]
    )
    facts = windows.facts(REGISTRY, records, {40}, 64 << 30, "AMD64", extra=["avxvnni"])
    assert facts.name == "13th Gen Intel(R) Core(TM) i9-13900K"
    assert facts.isa == ("avx2", "fma", "f16c", "avxvnni")
    assert [(g.name, g.count, g.mhz, g.small) for g in facts.groups] == [
        ("performance", 8, 3000, False),
        ("efficiency", 16, 3000, True),
    ]
    assert facts.caches == {"L1d": 49152, "L3": 36 << 20}
    assert [c.core_class for c in profile_of(facts).clusters] == ["x86-avxvnni", "x86-small"]


def test_windows_on_arm():
    facts = windows.facts("", core(0) * 12, {19, 43, 66}, 16 << 30, "ARM64")
    assert facts.isa == ("neon", "dotprod", "i8mm")
    assert profile_of(facts).clusters[0].core_class == "arm-wide-i8mm"


@pytest.mark.parametrize(
    "records", [b"", b"\0" * 7, struct.pack("<II", 0, 4), struct.pack("<II", 0, 4000), core(0)[:20]]
)
def test_records_that_make_no_sense_end(records):
    assert windows.facts("", records, (), 1 << 30, "AMD64").groups == ()


def test_nvidia_smi():
    text = "NVIDIA GeForce RTX 4090, 24564\nNVIDIA GeForce RTX 3060, 12288\n\nnonsense\n"
    assert nvidia.by_text(text) == (
        HostGpu("NVIDIA GeForce RTX 4090", 24564 << 20),
        HostGpu("NVIDIA GeForce RTX 3060", 12288 << 20),
    )


class NoDriver(Exception):
    pass


def fake_nvml(**changes) -> SimpleNamespace:
    """NVML of an H100 SXM: 5120 bits at 2619 MHz."""
    functions = {
        "NVMLError": NoDriver,
        "nvmlInit": lambda: None,
        "nvmlShutdown": lambda: None,
        "nvmlDeviceGetCount": lambda: 1,
        "nvmlDeviceGetHandleByIndex": lambda i: i,
        "nvmlDeviceGetName": lambda handle: b"NVIDIA H100 80GB HBM3",
        "nvmlDeviceGetMemoryInfo": lambda handle: SimpleNamespace(total=80 << 30),
        "nvmlDeviceGetMaxClockInfo": lambda handle, kind: 2619,
        "nvmlDeviceGetMemoryBusWidth": lambda handle: 5120,
    }
    return SimpleNamespace(**{**functions, **changes})


def test_nvml():
    (gpu,) = nvidia.by_nvml(fake_nvml())
    assert (gpu.name, gpu.memory) == ("NVIDIA H100 80GB HBM3", 80 << 30)
    assert gpu.gbs == pytest.approx(3352, abs=1)


def test_nvml_without_a_driver():
    def fails(*arguments):
        raise NoDriver

    assert nvidia.by_nvml(fake_nvml(nvmlInit=fails)) == ()
    (gpu,) = nvidia.by_nvml(fake_nvml(nvmlDeviceGetMemoryBusWidth=fails))
    assert gpu.gbs == 0.0


def test_a_known_gpu_has_its_numbers():
    facts = HostFacts(
        "linux", "x86", "PC", ("avx2",), (), 0, gpus=(HostGpu("NVIDIA GeForce RTX 4090", 24 << 30),)
    )
    (gpu,) = profile_of(facts).gpus
    assert (gpu.gbs, gpu.teraflops) == (1008, 165)


def test_this_machine_can_be_written_and_read(monkeypatch, tmp_path):
    monkeypatch.setenv("EDGEQ_DEVICES", str(tmp_path))
    profile = this_machine()
    assert cpu_of(profile).decode["Q4_K"] > 1
    assert 0.1 < profile.memory.gb < 1e5
    path = tmp_path / "this.toml"
    path.write_text(profile_toml(profile).replace("gb = ", 'read_gbs = 77.5\nread_source = "this"\ngb = ', 1))
    assert read_profile(path).memory.read_gbs == 77.5
    assert this_machine().memory.read_gbs == 77.5  # the saved one, with today's memory
