"""``edgeq bench MODEL…``: what is measured and written, comparisons, and the zip on two wheels."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import venv
import zipfile
from pathlib import Path

import numpy
import pytest

from edgeq.bench.compare import compare, least_likely, rank_chance
from edgeq.bench.models import percentile, read_record
from edgeq.bench.sensors import Sensors
from edgeq.devices.profile import read_profile
from edgeq.errors import FormatError
from edgeq.runtimes import llama_cpp

QUICK = ("--threads", 1, "--gen", 4, "--repeat", 2)


def record(path: Path) -> dict:
    return json.loads(path.read_text())


@pytest.fixture(scope="module")
def measured(edgeq, floats, minilm, tmp_path_factory):
    """A damaged file, decoders in GGUF and ONNX and an encoder, each in the engine for its file, and the results."""
    folder = tmp_path_factory.mktemp("measured")
    broken = folder / "broken.gguf"
    broken.write_bytes(b"GGUF" + bytes(40))
    outputs = [folder / f"result.{suffix}" for suffix in ("json", "csv", "md")]
    options = ["--prompt", 8, *QUICK, *(part for path in outputs for part in ("-o", path))]
    return edgeq("bench", broken, floats.gguf, floats.onnx, minilm, *options), outputs


def test_every_combination_is_measured(measured):
    failed, *results = record(measured[1][0])["results"]
    engines = [("model-F32.gguf", "embedded"), ("model.onnx", "onnxruntime"), ("model", "embedded")]
    assert [(r["model"], r["engine"]) for r in results] == engines
    for result in results:
        figures, own = result["figures"], result["measured"]
        decoder = result["model"] != "model"
        assert own["kind"] == ("decoder" if decoder else "encoder")
        turns = len(own["prefill"]), len(own["decode"]), len(own["steps"])
        assert turns == ((2, 2, 8) if decoder else (2, 0, 0))
        assert figures["prefill_tokens_per_s"] == pytest.approx(8 / figures["prefill_p50_s"])
        assert (figures["decode_tokens_per_s"] is not None) == decoder
        assert figures["load_s"] > 0
        assert result["bytes"] / 4 < figures["peak_memory_bytes"] < 4e9
        assert result["error"] == ""
    assert failed["figures"] == {}


def test_a_model_that_fails_is_told_after_the_others(measured):
    done, outputs = measured
    assert done.code == 1
    assert "1 of 4 failed" in done.err
    assert "broken.gguf" in done.err.splitlines()[-1]
    assert record(outputs[0])["results"][0]["error"]


def test_the_files_say_what_was_measured_where(measured):
    done, (json_path, csv_path, md_path) = measured
    about = record(json_path)
    assert about["machine"]["memory_bytes"] > 1e8
    assert about["versions"]["numpy"] == numpy.__version__
    with csv_path.open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4
    assert float(rows[1]["load_s"]) == about["results"][1]["figures"]["load_s"]
    assert rows[0]["numpy"] == numpy.__version__
    lines = md_path.read_text().splitlines()
    assert len([line for line in lines if line.startswith("| ")]) == 6
    assert about["machine"]["name"] in lines[-1]
    assert "generate t/s" in done.out
    assert "model-F32.gguf" in done.out


@pytest.mark.skipif(not llama_cpp.available(), reason="llama_cpp is not installed")
def test_llama_cpp(edgeq, floats):
    options = ("--engine", "llama.cpp", "--prompt", 8, *QUICK, "--json")
    (result,) = json.loads(edgeq("bench", "models", floats.gguf, *options).out)["results"]
    assert result["engine_version"] == llama_cpp.version()
    assert result["figures"]["decode_tokens_per_s"] > 1


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ((), 2, "give a model"),
        (("x.gguf",), 1, "no such file"),
        (("{gguf}", "--engine", "onnxruntime"), 2, "--engine onnxruntime does not run"),
        (("{gguf}", "--threads", "1,x"), 2, "--threads 1,x"),
        (("{gguf}", "--prompt", "0"), 2, "--prompt 0"),
        (("{gguf}", "-o", "r.txt"), 2, "must end in .json, .csv, .md"),
        (("{gguf}", "--pack", "p.zip"), 2, "--pack goes with no models"),
        (("--fail-if-slower",), 2, "goes with --compare"),
        (("--compare", "{gguf}", "{gguf}"), 1, "is not JSON"),
    ],
)
def test_bad_options(edgeq, floats, arguments, code, said):
    words = [str(floats.gguf) if word == "{gguf}" else word for word in arguments]
    done = edgeq("bench", *(words or ["models"]))
    assert (done.code, done.out, len(done.err.splitlines())) == (code, "", 1), done.err
    assert said in done.err


def result(seconds: list[float], load: float = 1.0) -> dict:
    measured = {"prefill": seconds, "decode": [], "load": load, "peak_memory": 10**8}
    key = {"model": "m", "engine": "embedded", "threads": 1, "prompt": 8, "gen": 0}
    return {"edgeq_bench": 1, "machine": {"name": "here"}, "results": [key | {"measured": measured}]}


@pytest.mark.parametrize(
    ("after", "verdict"),
    [
        ([1.20, 1.21, 1.22, 1.23, 1.25], "slower"),
        ([0.80, 0.81, 0.82, 0.83, 0.84], "faster"),
        ([1.00, 1.01, 1.20, 0.98, 1.03], "same"),  # one turn was disturbed
        ([1.021, 1.022, 1.023, 1.024, 1.025], "same"),  # within the tolerance
        ([2.0, 2.0, 2.0], "too few turns"),
    ],
)
def test_compare_says_what_is_beyond_the_noise(edgeq, tmp_path, after, verdict):
    files = []
    for name, seconds in (("a", [1.0, 1.01, 1.02, 1.005, 0.99]), ("b", after)):
        files.append(tmp_path / f"{name}.json")
        files[-1].write_text(json.dumps(result(seconds)))
    done = edgeq("bench", "--compare", *files, "--json")
    prefill, *told = json.loads(done.out)
    assert (prefill["figure"], prefill["verdict"]) == ("prefill", verdict)
    assert [one["verdict"] for one in told] == ["told", "told"]
    gate = edgeq("bench", "--compare", *files, "--fail-if-slower")
    assert gate.code == (3 if verdict == "slower" else 0)
    assert verdict in gate.out


def test_many_figures_of_the_same_thing_are_the_same():
    """Of a thousand comparisons in which chance is all there is, one in twenty may say something, with any number."""
    random = numpy.random.default_rng(0)
    for count in (1, 4, 30):
        said = sum(least_likely(list(random.random(count))) > 0 for _ in range(1000))
        assert said < 80
    assert least_likely([0.0079] * 3 + [0.5] * 13) == 0.0079  # three of sixteen that five turns tell apart
    assert least_likely([]) == 0


def test_a_busy_machine_is_told(edgeq, tmp_path):
    record = result([1.0, 1.01, 1.02, 1.005, 0.99])
    record["machine"] |= {"load_average": [5.0, 4.0, 3.0], "cores": [{"count": 2}]}
    path = tmp_path / "a.json"
    path.write_text(json.dumps(record))
    done = edgeq("bench", "--compare", path, path)
    assert done.code == 0
    assert "busy" in done.err


@pytest.mark.parametrize(
    "change",
    [
        {"results": [1]},
        {"results": [{"measured": 3}]},
        {"results": [{"measured": {}, "threads": "two"}]},
        {"results": [{"measured": {"prefill": ["a"]}}]},
        {"results": [{"measured": {"prefill": [float("nan")]}}]},
        {"results": [{"measured": {"decode": 3}}]},
        {"machine": []},
        {"machine": {}},
    ],
)
def test_records_of_other_kinds_are_refused(tmp_path, change):
    path = tmp_path / "a.json"
    path.write_text(json.dumps(result([1.0]) | change))
    with pytest.raises(FormatError, match="no result of edgeq bench"):
        read_record(path)


def test_results_without_anything_in_common_are_refused():
    other = result([1.0])
    other["results"][0]["threads"] = 2
    with pytest.raises(Exception, match="nothing in common"):
        compare(result([1.0]), other)


def test_rank_chance_is_the_exact_one():
    """Counted by hand: of the 20 orders of 3 and 3, one has all of the first below; ties are the less sure side."""
    assert rank_chance([1, 2, 3], [4, 5, 6]) == pytest.approx(2 / 20)
    assert rank_chance([1, 2, 3, 4, 5], [6, 7, 8, 9, 10]) == pytest.approx(2 / 252)
    assert rank_chance([1, 2, 4], [3, 5, 6]) == pytest.approx(2 * (1 + 1) / 20)
    assert rank_chance([1, 1, 1], [1, 1, 1]) == 1


def test_percentile():
    assert percentile([4, 1, 3, 2], 50) == 2.5
    assert percentile([1, 2], 95) == pytest.approx(1.95)
    assert percentile([7], 95) == 7


def test_sensors_of_a_machine_that_has_them(tmp_path):
    zone = tmp_path / "sys/class/powercap/intel-rapl:0"
    part = tmp_path / "sys/class/powercap/intel-rapl:0:0"  # a part of the package: not counted twice
    heat, clock = (
        tmp_path / "sys/class/thermal/thermal_zone0",
        tmp_path / "sys/devices/system/cpu/cpu0/cpufreq",
    )
    for folder in (zone, part, heat, clock):
        folder.mkdir(parents=True)
    for folder in (zone, part):
        (folder / "max_energy_range_uj").write_text("10000000")
        (folder / "energy_uj").write_text("9000000")
    (heat / "temp").write_text("61500\n")
    (clock / "scaling_cur_freq").write_text("2400000\n")
    sensors = Sensors(tmp_path)
    before = sensors.read()
    (zone / "energy_uj").write_text("1500000")
    assert sensors.joules_between(before, sensors.read()) == pytest.approx(2.5)  # the counter began anew
    assert (before.degrees, before.megahertz) == (61.5, 2400)
    nothing = Sensors(tmp_path / "bare")
    assert nothing.joules_between(nothing.read(), nothing.read()) is None


@pytest.fixture(scope="module")
def bare_python(tmp_path_factory) -> Path:
    """An environment with numpy, numba and llvmlite alone: links to those of this one."""
    folder = tmp_path_factory.mktemp("bare")
    venv.create(folder, with_pip=False, symlinks=os.name != "nt")
    here = Path(numpy.__file__).parents[1]
    packages = next(folder.glob("lib/python*/site-packages"), folder / "Lib/site-packages")
    for name in ("numpy", "numpy.libs", "numba", "llvmlite"):
        if (here / name).exists():
            (packages / name).symlink_to(here / name)
    return folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


@pytest.mark.slow
def test_the_zip_measures_with_two_wheels(edgeq, bare_python, tinylm, tmp_path):
    packed = tmp_path / "bench.zip"
    assert edgeq("bench", "--pack", packed).code == 0
    again = tmp_path / "again.zip"
    edgeq("bench", "--pack", again)
    with zipfile.ZipFile(packed) as first, zipfile.ZipFile(again) as second:
        assert first.namelist() == second.namelist()
        assert "edgeq/kernels_cpu/jit.py" in first.namelist()
        assert not [name for name in first.namelist() if name.startswith("edgeq/edgeq")]
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "NUMBA_CACHE_DIR")}
    environment["EDGEQ_CACHE"] = str(tmp_path / "cache")

    def run(*command: object) -> subprocess.CompletedProcess[str]:
        words = list(map(str, command))
        return subprocess.run(
            words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )

    done = run(bare_python, packed, "-o", "d.toml", "--types", "Q8_0", "-t", 1)
    assert done.returncode == 0, done.stderr
    profile = read_profile(tmp_path / "d.toml")
    assert profile.memory.read_gbs
    assert profile.rates[0].decode["Q8_0"] > 0
    assert edgeq("plan", tinylm, "--profile", tmp_path / "d.toml").code == 0
    environment["PYTHONPATH"] = str(next((tmp_path / "cache").glob("bench-*")))
    engine = "import edgeq.bench.child, edgeq.bench.models, edgeq.engine.fast, edgeq.formats.gguf.split"
    imported = run(bare_python, "-c", f"{engine}; print(edgeq.bench.models.versions())")
    assert imported.returncode == 0, imported.stderr  # what --model needs is on two wheels, too
