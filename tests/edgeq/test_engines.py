"""The table of engines: what opens a path, and that nobody else keeps such a table."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeq.bench import engines as timed
from edgeq.cli._options import Engine, KVType
from edgeq.errors import InputError, UsageError
from edgeq.kernels_cpu.cached import CACHE_TYPES
from edgeq.runtimes.engines import ENGINES, engine_for, gguf_prover, like


@pytest.fixture
def paths(tmp_path: Path) -> dict[str, Path]:
    files = {name: tmp_path / name for name in ("m.gguf", "m.onnx", "m.ORT", "unnamed")}
    for path in files.values():
        path.touch()
    return files | {"folder": tmp_path}


def test_auto_is_the_engine_for_the_file(paths: dict[str, Path]) -> None:
    found = {name: engine_for(path) for name, path in paths.items()}
    assert found == {
        "m.gguf": "embedded",
        "m.onnx": "onnxruntime",
        "m.ORT": "onnxruntime",
        "unnamed": "embedded",
        "folder": "embedded",
    }


def test_an_engine_that_does_not_open_a_path_is_refused(paths: dict[str, Path]) -> None:
    assert engine_for(paths["m.gguf"], "llama.cpp") == "llama.cpp"
    with pytest.raises(UsageError, match=r"llama\.cpp does not run .*m\.onnx; take onnxruntime"):
        engine_for(paths["m.onnx"], "llama.cpp")
    with pytest.raises(UsageError, match=r"take embedded or llama\.cpp"):
        engine_for(paths["m.gguf"], "onnxruntime")
    with pytest.raises(InputError, match="no such file"):
        engine_for(paths["folder"] / "nothing.gguf")


def test_a_reference_is_run_alike_where_it_can_be(paths: dict[str, Path]) -> None:
    assert like("llama.cpp", paths["m.gguf"]) == "llama.cpp"
    assert like("llama.cpp", paths["folder"]) == "auto"


def test_gguf_files_are_proven_in_llama_cpp_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    for installed, engine in ((True, "llama.cpp"), (False, "embedded")):
        monkeypatch.setattr("importlib.util.find_spec", lambda name, found=installed: found or None)
        assert gguf_prover() == engine


def test_options_and_benchmarks_have_the_same_names() -> None:
    timed.load_all()
    assert [one.value for one in Engine] == ["auto", *ENGINES]
    assert timed.OPENERS.keys() == ENGINES.keys()
    assert {one.value for one in KVType} == set(CACHE_TYPES)
