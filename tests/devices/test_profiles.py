"""Every profile that comes with edgeq, and what makes a profile wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeq.devices import library
from edgeq.devices.classes import defaults, rate_of
from edgeq.devices.machine import cpu_of, gpu_of
from edgeq.devices.profile import KINDS, read_profile, with_memory
from edgeq.devices.to_toml import profile_toml
from edgeq.formats.errors import EdgeqError, FormatError
from edgeq.formats.gguf.types import TENSOR_TYPES_BY_NAME

BUILT_IN = sorted(library.BUILT_IN.glob("*.toml"))
# What must be there, one of each kind that people ask about.
WANTED = """
raspberry-pi-4 raspberry-pi-5 rk3588 jetson-orin-nano pixel-9 galaxy-s24 iphone-15-pro ipad-pro-m4 snapdragon-x-elite
apple-m1 apple-m1-pro apple-m1-max apple-m2 apple-m2-pro apple-m2-max apple-m3 apple-m3-pro apple-m3-max
apple-m4 apple-m4-pro apple-m4-max core-i5-8250u n100 core-ultra-7-155h core-ultra-7-258v
ryzen-7-5800x ryzen-9-7950x ryzen-9-9950x xeon-platinum-8480 epyc-9654 graviton3 graviton4 2-vcpu
rtx-3060 rtx-4090 a10 h100-pcie
"""

GOOD = """
name = "A board"
kind = "board"
apps = ["desktop"]

[sources.maker]
what = "its maker"
date = "2024-03"

[memory]
gb = 4
peak_gbs = 12.8
source = "maker"

[[cores]]
name = "Cortex-A76"
class = "arm-mid"
count = 4
ghz = 2.4
source = "maker"
"""


@pytest.fixture(autouse=True)
def no_user_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("EDGEQ_DEVICES", str(tmp_path / "mine"))


def write(folder: Path, text: str, name: str = "board") -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}.toml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("path", BUILT_IN, ids=lambda path: path.stem)
def test_every_profile_can_be_predicted_with(path):
    profile = read_profile(path)
    assert profile.sources
    assert all(len(source.what) > 10 for source in profile.sources.values())
    machines = [cpu_of(profile)] if profile.clusters else []
    for machine in (*machines, *(gpu_of(profile, gpu) for gpu in profile.gpus)):
        assert 1 < machine.read_gbs < 4000
        floats = TENSOR_TYPES_BY_NAME.keys() & {
            "F32",
            "F16",
            "Q8_0",
            "Q4_0",
            "Q4_K",
            "Q6_K",
            "Q2_K",
            "IQ4_XS",
        }
        assert all(machine.decode[name] > 0.5 and machine.prefill[name] > 1 for name in floats)
    if profile.memory.read_gbs and profile.memory.peak_gbs:
        assert profile.memory.read_gbs <= profile.memory.peak_gbs


@pytest.mark.parametrize("path", BUILT_IN, ids=lambda path: path.stem)
def test_every_profile_is_what_is_written_of_it(path, tmp_path):
    profile = read_profile(path)
    again = read_profile(write(tmp_path, profile_toml(profile), profile.id))
    assert profile_toml(again) == profile_toml(profile)
    assert (again.clusters, again.memory, again.gpus, again.rates) == (
        profile.clusters,
        profile.memory,
        profile.gpus,
        profile.rates,
    )


def test_the_wanted_devices_are_there():
    assert len(BUILT_IN) >= 40
    for name in WANTED.split():
        assert library.find(name)


def test_names_do_not_clash():
    names = [
        key for p in library.all_profiles() for key in {library.key_of(n) for n in (p.id, p.name, *p.aliases)}
    ]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("old", "new", "field"),
    [
        ('kind = "board"', 'kind = "toaster"', "kind"),
        ("gb = 4", "gb = true", "memory.gb"),
        ("gb = 4", "gb = 1e300", "memory.gb"),
        ("gb = 4", "gb = nan", "memory.gb"),
        ("count = 4", "count = 4.5", "cores 1, count"),
        ("count = 4", "count = 0", "cores 1, count"),
        ("ghz = 2.4", "", "cores 1, ghz"),
        ('date = "2024-03"', 'date = "March"', "sources.maker.date"),
        ('source = "maker"', 'source = "nobody"', "source"),
        ('apps = ["desktop"]', 'apps = ["toaster"]', "apps"),
        ('apps = ["desktop"]', 'apps = ["desktop"]\ncolour = "red"', "colour"),
        ("peak_gbs = 12.8", "peak_gbs = 12.8\nread_gbs = 9", "memory.read_source"),
        ("peak_gbs = 12.8", 'peak_gbs = 12.8\nread_is = "assumed"', "read_is"),
        ("[memory]", '[sources.other]\nwhat = "x"\ndate = "2024"\n[memory]', "sources.other"),
        ('apps = ["desktop"]', 'apps = ["desktop"]\nisa = ["neon", "warp9"]', "isa"),
        ('name = "A board"', 'name = "two\\nlines"', "name"),
        ("[[cores]]", "[cores]", "cores"),
        ("[memory]", "memory = 3\n[ram]", "memory"),
    ],
)  # fmt: skip
def test_a_wrong_field_is_named(tmp_path, old, new, field):
    assert old in GOOD
    with pytest.raises(FormatError) as caught:
        read_profile(write(tmp_path, GOOD.replace(old, new, 1)))
    assert field in str(caught.value)
    assert "board.toml" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"\xff\xfe", b"= 3", b"a = " + b"[" * 5000, b"x" * (1 << 20) + b"xx"])
def test_what_is_no_toml(tmp_path, content):
    path = tmp_path / "bad.toml"
    path.write_bytes(content)
    with pytest.raises(FormatError, match=r"bad\.toml"):
        read_profile(path)


def test_no_cores_and_an_unknown_class(tmp_path):
    with pytest.raises(FormatError, match="there are none"):
        read_profile(write(tmp_path, GOOD.partition("[[cores]]")[0]))
    profile = read_profile(write(tmp_path, GOOD.replace("arm-mid", "arm-giant")))
    with pytest.raises(EdgeqError, match="no class arm-giant"):
        cpu_of(profile)


def test_a_user_s_own_profile_wins(tmp_path):
    write(tmp_path / "mine", GOOD, "raspberry-pi-5")
    write(tmp_path / "mine", GOOD, "my-board")
    assert library.find("Raspberry Pi 5").name == "A board"
    assert library.find("MY_BOARD").memory.gb == 4
    assert with_memory(library.find("my-board"), 8).memory.gb == 8


@pytest.mark.parametrize(
    ("text", "profile"),
    [
        ("AMD EPYC 9654 96-Core Processor", "epyc-9654"),
        ("12th Gen Intel(R) Core(TM) i7-12700K", "core-i7-12700"),
        ("MacBook Air M2", "apple-m2"),
        ("m2 max", "apple-m2-max"),
        ("Raspberry Pi 5 8GB", "raspberry-pi-5"),
        ("Snapdragon 8 Gen 3", "galaxy-s24"),
        ("Galaxy S24 Ultra", "galaxy-s24"),
        ("Ryzen 7 7840U", "ryzen-7-7840u"),
        ("M2 Pro", "apple-m2-pro"),
    ],
)
def test_a_longer_text_that_holds_a_name(text, profile):
    assert library.find(text).id == profile


@pytest.mark.parametrize("text", ["Intel", "m2 max or m4 max", "---", "M22"])
def test_no_name_or_several(text):
    with pytest.raises(EdgeqError, match="no such device"):
        library.find(text)


def test_a_misspelt_name_gets_the_nearest():
    with pytest.raises(EdgeqError, match="raspberry-pi-5"):
        library.find("raspbery pie 5")


def test_classes_cover_every_kind_and_derive_from_measured_ones():
    known = defaults()
    assert set(known.bandwidth) == set(KINDS)
    small, large = known.classes["x86-small"], known.classes["x86-avx2"]
    assert rate_of(small.decode, "Q4_K") == pytest.approx(0.5 * large.decode["Q4_K"])
    assert rate_of(large.decode, "Q5_1") == large.decode["Q5_0"]
    assert rate_of(large.decode, "I64") is None
    assert all(core.why or core.decode["Q4_K"] for core in known.classes.values())
