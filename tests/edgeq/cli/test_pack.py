"""``edgeq export --app``, ``edgeq pack`` and ``edgeq inspect --app``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import Command

from edgeq.apps.manifest import read_manifest


@pytest.fixture(scope="module")
def shipped(edgeq: Command, tinylm: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("shipped")
    options = ("--to", "gguf", "--quant", "Q8_0", "--effort", "ggml", "--no-proof", "-o", out)
    done = edgeq("export", tinylm, *options, "--app", "ollama", "--app", "wllama", "--json")
    assert done.code == 0, done.err
    record = json.loads(done.out)
    assert [bundle["app"] for bundle in record["apps"]] == ["ollama", "wllama"]
    assert all(not [f for f in bundle["findings"] if f["severity"] == "error"] for bundle in record["apps"])
    return out


def test_export_makes_bundles(shipped: Path) -> None:
    names = sorted(path.relative_to(shipped).as_posix() for path in shipped.rglob("*.gguf"))
    assert names == ["model-Q8_0.gguf", "ollama/tinylm-Q8_0.gguf", "wllama/tinylm-Q8_0.gguf"]
    assert "FROM ./tinylm-Q8_0.gguf" in (shipped / "ollama/Modelfile").read_text()
    assert "apps" not in json.loads((shipped / "edgeq.json").read_text())["exports"][0]


def test_pack_and_inspect(edgeq: Command, shipped: Path, tmp_path: Path) -> None:
    done = edgeq(
        "pack", shipped / "model-Q8_0.gguf", "--app", "lm-studio", "--app", "llama.rn", "-o", tmp_path
    )
    assert done.code == 0, done.err
    assert "edgeq/tinylm-GGUF/tinylm-Q8_0.gguf" in done.out
    folder = tmp_path / "lm-studio"
    assert edgeq("inspect", folder, "--app", "lm-studio").code == 0
    main = folder / read_manifest(folder)["main"]
    main.rename(folder / "loose.gguf")
    done = edgeq("inspect", folder, "--app", "lm-studio", "--json")
    assert done.code == 3
    found = json.loads(done.out)
    assert not found["ok"]
    assert {"loose.gguf", "edgeq/tinylm-GGUF/tinylm-Q8_0.gguf"} <= {one["where"] for one in found["findings"]}
    assert found["counts"]["error"] >= 2


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("pack", "nothing.gguf", "--app", "ollama"), 1, "no such file"),
        (("pack", "MODEL", "--app", "transformers.js"), 2, "loads ONNX, not GGUF"),
        (("pack", "MODEL", "--app", "android"), 2, "edgeq plan"),
        (("inspect", "MODEL", "--app", "ollama"), 1, "no such folder"),
        (("inspect", "FOLDER", "--app", "ollama", "--lint"), 2, "do not go together"),
        (("export", "FOLDER", "--to", "gguf", "-q", "Q8_0", "--app", "browser"), 2, "edgeq plan"),
        (("export", "FOLDER", "--to", "gguf", "-q", "Q8_0", "--app", "transformers.js"), 2, "loads ONNX"),
    ],
)
def test_bad_words(edgeq: Command, shipped: Path, arguments: tuple[str, ...], code: int, said: str) -> None:
    places = {"MODEL": shipped / "model-Q8_0.gguf", "FOLDER": shipped}
    done = edgeq(*(places.get(word, word) for word in arguments))
    assert done.code == code
    assert said in done.err
    assert done.err.count("\n") == 1
