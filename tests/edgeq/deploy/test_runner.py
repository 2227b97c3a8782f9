"""The runner with models that fail in every way there is, and with a real one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_gguf

from edgeq.apps.manifest import write_manifest
from edgeq.apps.pack import pack
from edgeq.apps.registry import find
from edgeq.deploy import Canary, DeployError, Failure, Runner, Shadow
from edgeq.deploy.runner import OPENER
from edgeq.deploy.state import State
from edgeq.errors import UsageError

FAKE = "fake_models:open_fake"


@pytest.fixture(autouse=True)
def _found_by_children(monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker's process finds fake_models, and edgeq where this process found it."""
    root = Path(__file__).parents[3]
    monkeypatch.setenv("PYTHONPATH", f"{Path(__file__).parent}:{root}")


def _bundle(folder: Path, name: str, **said: Any) -> Path:
    home = folder / name
    home.mkdir()
    (home / "model.json").write_text(json.dumps({"name": name, **said}))
    write_manifest(home, {"app": "test", "main": "model.json", "runtime": {}})
    return home


def _runner(folder: Path, *names: str, **options: Any) -> Runner:
    chain = [folder / name if (folder / name).exists() else _bundle(folder, name) for name in names]
    return Runner(chain, folder / "state.json", **{"opener": FAKE, "seconds": 20.0, **options})


def _short(model: str) -> str:
    return model.rpartition("/")[2]


def test_the_first_answers(tmp_path: Path) -> None:
    with _runner(tmp_path, "new", "old") as runner:
        answer = runner.ask("a", prompt="hello")
    assert (answer.value, _short(answer.model), answer.tried) == ("new: hello", "new", [])
    assert State.read(tmp_path / "state.json").last_good == runner._chain[0].identity


@pytest.mark.parametrize(
    ("trouble", "kind"),
    [
        ("nan", Failure.nan),
        ("repetition", Failure.repetition),
        ("memory", Failure.memory),
        ("killed", Failure.memory),
        ("crash", Failure.crash),
        ("error", Failure.error),
    ],
)
def test_the_next_answers_where_one_fails(tmp_path: Path, trouble: str, kind: Failure) -> None:
    with _runner(tmp_path, "new", "old") as runner:
        answer = runner.ask("a", prompt="x", trouble={"new": trouble})
        assert (answer.value, [kind for _, kind in answer.tried]) == ("old: x", [kind])
        again = runner.ask(
            "a", prompt="y"
        )  # one failure does not give it up; a process that ended is started anew
        assert again.value == "new: y"
        assert runner.state.failures == {}


def test_a_request_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    with _runner(tmp_path, "new", "old", seconds=3.0) as runner:
        answer = runner.ask("a", prompt="x", trouble={"new": "timeout"})
    assert (answer.value, answer.tried[0][1]) == ("old: x", Failure.timeout)


@pytest.mark.parametrize("said", [{"load": "refuse"}, {"load": "exit"}])
def test_a_model_that_does_not_open(tmp_path: Path, said: dict[str, Any]) -> None:
    _bundle(tmp_path, "new", **said)
    with _runner(tmp_path, "new", "old") as runner:
        assert runner.ask("a", prompt="x").tried[0][1] is Failure.load


def test_a_changed_file_is_not_loaded(tmp_path: Path) -> None:
    home = _bundle(tmp_path, "new")
    (home / "model.json").write_text('{"name": "bad"}')
    with _runner(tmp_path, "new", "old") as runner:
        answer = runner.ask("a", prompt="x")
    assert (answer.value, answer.tried[0][1]) == ("old: x", Failure.load)


def test_nobody_answers(tmp_path: Path) -> None:
    with _runner(tmp_path, "new", "old") as runner, pytest.raises(DeployError, match="nan") as caught:
        runner.ask("a", prompt="secret", trouble={"new": "nan", "old": "error"})
    assert [kind for _, kind in caught.value.tried] == [Failure.nan, Failure.error]
    assert "secret" not in str(caught.value)


def test_what_keeps_failing_is_given_up_also_after_a_restart(tmp_path: Path) -> None:
    """Failures in a row; the requests go to the one that answered last, and a new bundle starts afresh."""
    names = ("new", "middle", "old")
    with _runner(tmp_path, *names, most_failures=2) as runner:
        both = {"new": "nan", "middle": "nan"}
        assert runner.ask("a", prompt="1", trouble=both).value == "old: 1"
        assert runner.ask("a", prompt="2", trouble={"new": "nan"}).value == "middle: 2"
    with _runner(tmp_path, *names, most_failures=2) as runner:
        answer = runner.ask("a", prompt="3")
        assert (answer.value, answer.tried) == ("middle: 3", [])
    (tmp_path / "new" / "model.json").write_text('{"name": "newer"}')
    write_manifest(tmp_path / "new", {"app": "test", "main": "model.json", "runtime": {}})
    with _runner(tmp_path, *names, most_failures=2) as runner:
        assert runner.ask("a", prompt="4").value == "newer: 4"


def test_the_last_one_is_never_given_up(tmp_path: Path) -> None:
    with _runner(tmp_path, "only", most_failures=1) as runner:
        with pytest.raises(DeployError):
            runner.ask("a", prompt="x", trouble={"only": "nan"})
        assert runner.ask("a", prompt="x").value == "only: x"


def test_a_process_that_died_while_loading_counts(tmp_path: Path) -> None:
    with _runner(tmp_path, "new", "old", most_failures=1) as runner:
        state = State.read(tmp_path / "state.json")
        state.loading = runner._chain[0].identity
        state.write()
    with _runner(tmp_path, "new", "old", most_failures=1) as runner:
        assert runner.ask("a", prompt="x").value == "old: x"


@pytest.mark.parametrize("content", ["", "[]", '{"failures": 3, "given_up": [1], "loading": {}}'])
def test_a_damaged_state_is_no_reason_to_stop(tmp_path: Path, content: str) -> None:
    (tmp_path / "state.json").write_text(content)
    with _runner(tmp_path, "new") as runner:
        assert runner.ask("a", prompt="x").value == "new: x"


def test_the_canary_answers_its_keys(tmp_path: Path) -> None:
    canary = Canary(_bundle(tmp_path, "canary"), share=0.5, salt="s")
    keys = [f"user-{i}" for i in range(12)]
    assert {canary.takes(key) for key in keys} == {True, False}
    with _runner(tmp_path, "stable", canary=canary, most_failures=2) as runner:
        for key in keys:
            assert runner.ask(key, prompt="x").value.startswith("canary" if canary.takes(key) else "stable")
        key = next(filter(canary.takes, keys))
        for _ in range(2):
            assert runner.ask(key, prompt="x", trouble={"canary": "nan"}).value == "stable: x"
        answer = runner.ask(key, prompt="x")  # given up
        assert (answer.value, answer.tried) == ("stable: x", [])


def test_shadow_runs_log_numbers_only(tmp_path: Path) -> None:
    log = tmp_path / "shadow.jsonl"
    shadow = Shadow(_bundle(tmp_path, "unseen"), log)
    with _runner(tmp_path, "stable", shadow=shadow) as runner:
        runner.ask("key-of-somebody", prompt="something private")
        runner.ask("key-of-somebody", prompt="something private", trouble={"unseen": "nan"})
    text = log.read_text()
    assert "private" not in text
    assert "somebody" not in text
    first, second = map(json.loads, text.splitlines())
    assert (_short(first["model"]), _short(first["shadow"]), first["same"]) == ("stable", "unseen", False)
    assert first["agreement"] == 0
    assert first["lengths"] == [len("stable: something private"), len("unseen: something private")]
    assert second["failure"] == "nan"


def test_a_real_bundle(tmp_path: Path) -> None:
    """In the embedded engine: weights that are no numbers are found when it answers."""
    good = tiny_gguf.write(tmp_path / "good.gguf")
    norm = tiny_gguf.tensors()["output_norm.weight"][1]
    bad = tmp_path / "bad.gguf"
    bad.write_bytes(good.read_bytes().replace(norm.tobytes(), np.full_like(norm, np.nan).tobytes()))
    chain = [pack(path, find("edgeq"), tmp_path / path.stem).folder for path in (bad, good)]
    with Runner(chain, tmp_path / "state.json") as runner:
        answer = runner.ask("a", prompt="t1 t2", max_tokens=4)
    assert [kind for _, kind in answer.tried] == [Failure.nan]
    assert isinstance(answer.value, str)
    assert OPENER.startswith("edgeq.deploy.models:")


def test_wrong_words(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        Runner([], tmp_path / "state.json")
    with pytest.raises(UsageError):
        Canary(tmp_path, share=1.5)
    with pytest.raises(UsageError):
        Shadow(tmp_path, tmp_path / "log", share=-1)
