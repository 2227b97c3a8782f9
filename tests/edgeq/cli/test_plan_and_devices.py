"""``edgeq plan`` and ``edgeq devices`` as a user sees them."""

from __future__ import annotations

import json

import pytest

from edgeq.devices.library import BUILT_IN


@pytest.fixture(autouse=True)
def own_folder(monkeypatch: pytest.MonkeyPatch, tmp_path):
    monkeypatch.setenv("EDGEQ_DEVICES", str(tmp_path / "mine"))


def test_plan_prints_a_table(edgeq, tinylm):
    done = edgeq("plan", tinylm, "--target", "pi5", "--context", 512)
    assert (done.code, done.err) == (0, "")
    assert "Raspberry Pi 5" in done.out
    assert "gguf Q4_K_M" in done.out
    assert "make it" in done.out
    choice = next(line for line in done.out.splitlines() if line.startswith("choice"))
    assert choice.split()[1] in ("gguf", "onnx")


def test_plan_in_json(edgeq, tinylm):
    done = edgeq("plan", tinylm, "--target", "galaxy-s24", "--app", "android", "--memory", 12, "--json")
    record = json.loads(done.out)
    name = record["device"]["name"]
    assert record["device"] == {"id": "galaxy-s24", "name": name, "app": "android", "threads": 6}
    assert record["limit"]["bytes"] == pytest.approx(7.2e9)
    assert {row["format"] for row in record["formats"]} == {"gguf", "onnx"}


def test_plan_of_one_format_says_what_cpu_and_gpu_do(edgeq, tinylm):
    done = edgeq("plan", tinylm, "--target", "m2 max", "--quant", "q5_0", "--quant", "int8", "--json")
    blocks, plain = sorted(json.loads(done.out)["formats"], key=lambda row: row["format"])
    assert (blocks["quant"], plain["quant"]) == ("Q5_0", "int8")
    assert blocks["speed_by_unit"]["gpu"] == blocks["speed"] != blocks["speed_by_unit"]["cpu"]
    assert plain["speed_by_unit"] == {"cpu": plain["speed"]}
    assert "on CPU" in edgeq("plan", tinylm, "--target", "m2 max").out
    assert "on CPU" not in edgeq("plan", tinylm, "--target", "pi5").out
    assert "no such file type" in edgeq("plan", tinylm, "--quant", "Q9").err


def test_plan_with_a_profile_of_one_s_own(edgeq, tinylm, tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text((BUILT_IN / "n100.toml").read_text().replace('"Intel N100"', '"My box"', 1))
    assert "My box" in edgeq("plan", tinylm, "--profile", path).out
    path.write_text(path.read_text().replace("count = 4", "count = 0"))
    done = edgeq("plan", tinylm, "--profile", path)
    assert (done.code, done.out) == (1, "")
    assert "mine.toml: cores 1, count: must be a whole number" in done.err


def test_plan_for_this_machine(edgeq, tinylm):
    assert edgeq("plan", tinylm, "--context", 256).code == 0


def test_an_unknown_device(edgeq, tinylm):
    done = edgeq("plan", tinylm, "--target", "iphone 15 prro")
    assert done.code == 1
    assert "iphone-15-pro" in done.err
    assert len(done.err.splitlines()) == 1


def test_devices_list_and_show(edgeq):
    listed = json.loads(edgeq("devices", "list", "--json").out)
    assert len(listed) == len(list(BUILT_IN.glob("*.toml")))
    assert "raspberry-pi-5" in edgeq("devices", "list").out
    shown = edgeq("devices", "show", "rtx-4090")
    assert "1008 GB/s" in shown.out
    assert "(2022-10)" in shown.out
    assert json.loads(edgeq("devices", "show", "pi5", "--json").out)["machine"][0]["read_gbs"] == 9.0


def test_devices_detect_writes_a_profile(edgeq, tmp_path):
    path = tmp_path / "machine.toml"
    done = edgeq("devices", "detect", "-o", path, "--save")
    assert done.code == 0
    assert path.read_text() == (tmp_path / "mine/this.toml").read_text()
    assert edgeq("devices", "show", "this", "--profile", path).code == 0
    again = edgeq("devices", "detect", "-o", path)
    assert again.code == 1
    assert "exists already" in again.err


def test_a_profile_is_kept_under_a_name(edgeq, tmp_path):
    path = tmp_path / "device.toml"
    path.write_text((BUILT_IN / "raspberry-pi-5.toml").read_text())
    done = edgeq("devices", "add", path, "--id", "kitchen-pi", "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["id"] == "kitchen-pi"
    assert edgeq("devices", "show", "kitchen-pi").code == 0
    assert str(tmp_path / "mine") in edgeq("devices", "list").out
    for arguments, said in (
        ((path, "--id", "kitchen-pi"), "--force"),
        ((path, "--id", "../x"), "is no id"),
        ((path, "--id", "this"), "is no id"),
        ((tmp_path / "nothing.toml",), "cannot be read"),
    ):
        done = edgeq("devices", "add", *arguments)
        assert (done.code, done.err.count("\n")) == (1, 1)
        assert said in done.err


@pytest.mark.parametrize("options", [("--unit", "cpu"), ("--app", "browser")])
def test_a_profile_without_cores_has_no_cpu_to_plan_for(edgeq, tinylm, options):
    done = edgeq("plan", tinylm, "--target", "a10", *options)
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert options[0] in done.err
