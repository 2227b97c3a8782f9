"""Every layout of tiny models: packed, its lint is silent; spoiled, the lint says what would not load."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import tiny_gguf
from onnx_graphs import Tiny

from edgeq.apps import write
from edgeq.apps.layouts import wllama
from edgeq.apps.lint import lint
from edgeq.apps.manifest import NAME, note_gates, read_manifest
from edgeq.apps.onnx_model import onnx_model, precision
from edgeq.apps.pack import pack, recorded
from edgeq.apps.registry import LAYOUTS, GGUFLayout, find, layouts
from edgeq.errors import EdgeqError, FormatError, InputError, OutputExistsError, UsageError
from edgeq.formats.gguf.split import open_gguf
from edgeq.formats.gguf.split_writer import split_gguf
from edgeq.formats.onnx.read import read_model
from edgeq.formats.onnx.save import save_model
from edgeq.inspection.findings import Severity

GGUF = [name for name, one in layouts().items() if isinstance(one, GGUFLayout)]
ONNX = [name for name in layouts() if name not in GGUF]
WIDTH = 64
CONFIG = {"model_type": "bert", "num_attention_heads": 2, "num_hidden_layers": 1}


@pytest.fixture(scope="session")
def gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pairs = tiny_gguf.metadata() | {
        "general.name": "Tiny Llama 1",
        "tokenizer.chat_template": "{{ messages }}",
    }
    return tiny_gguf.write(tmp_path_factory.mktemp("gguf") / "model-Q8_0.gguf", pairs)


@pytest.fixture(scope="session")
def shards(gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    with open_gguf(gguf) as file:
        return split_gguf(file, tmp_path_factory.mktemp("shards") / "tiny.gguf", 8000)[0]


def _graph(cache: bool, blocks: bool) -> ir.Model:
    """ids → rows of a table; with ``cache`` as a decoder has it, with ``blocks`` by ONNX Runtime's own operator."""
    b = Tiny()
    random = np.random.default_rng(0)
    ids = b.input("input_ids", ir.DataType.INT64, ["batch", "tokens"])
    if blocks:
        table = b.const("table", random.integers(0, 256, (8, WIDTH)).astype(np.uint8))
        scales = b.const("scales", random.standard_normal((8, 2)).astype(np.float32))
        options = {"bits": 8, "block_size": 32, "gather_axis": 0, "quantize_axis": 1}
        y = b.tape.op("GatherBlockQuantized", [table, ids, scales], options, domain="com.microsoft")
    else:
        y = b.op("Gather", b.const("table", random.standard_normal((8, WIDTH)).astype(np.float32)), ids)
    b.output(b.op("Identity", y), "logits", ir.DataType.FLOAT, ["batch", "tokens", WIDTH])
    for part in ("key", "value") if cache else ():
        past = b.input(f"past_key_values.0.{part}", ir.DataType.FLOAT, ["batch", 2, "past", 4])
        b.output(b.op("Identity", past), f"present.0.{part}", ir.DataType.FLOAT, ["batch", 2, "past", 4])
    model = b.model("test")
    model.opset_imports["com.microsoft"] = 1
    return model


def _write_onnx(folder: Path, model: ir.Model, external: bool = False) -> Path:
    path = folder / "tiny_int8.onnx"
    save_model(model, path, force=True, external_from=1 if external else None)
    (folder / "config.json").write_text(json.dumps(CONFIG))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_text("{}")
    return path


@pytest.fixture(scope="session")
def onnx(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A decoder's graph with its weights beside it."""
    return _write_onnx(tmp_path_factory.mktemp("onnx"), _graph(cache=True, blocks=True), external=True)


def _errors(folder: Path, app: str) -> list[str]:
    return [f"{f.where}: {f.what}" for f in lint(folder, find(app)) if f.severity is Severity.error]


def test_there_is_a_layout_for_every_consumer() -> None:
    assert sorted(GGUF) == ["edgeq", "llama.rn", "lm-studio", "node-llama-cpp", "ollama", "wllama"]
    assert sorted(ONNX) == ["onnxruntime", "onnxruntime-react-native", "onnxruntime-web", "transformers.js"]
    assert all(one.__doc__ for one in LAYOUTS.values())


@pytest.mark.parametrize("app", GGUF)
def test_a_gguf_bundle_is_complete(gguf: Path, shards: Path, tmp_path: Path, app: str) -> None:
    for source, out in ((gguf, tmp_path / "whole"), (shards, tmp_path / "shards")):
        bundle = pack(source, find(app), out, name="Tiny Llama 1")
        assert not bundle.errors()
        main = bundle.folder / bundle.manifest["main"]
        assert main.name.startswith("Tiny-Llama-1-Q8_0")
        with open_gguf(main) as ours, open_gguf(source) as theirs:
            assert list(ours.tensors) == list(theirs.tensors)
            for tensor in ours.tensors:
                np.testing.assert_array_equal(ours.rows(tensor), theirs.rows(tensor))
        if app in ("llama.rn", "ollama"):
            assert "-of-" not in main.name
        assert read_manifest(bundle.folder)["app"] == app


@pytest.mark.parametrize("app", ONNX)
def test_an_onnx_bundle_is_complete(onnx: Path, tmp_path: Path, app: str) -> None:
    bundle = pack(onnx, find(app), tmp_path, name="tiny")
    assert not bundle.errors()
    assert bundle.manifest["inputs"][0]["name"] == "input_ids"
    assert [one["name"] for one in bundle.manifest["outputs"]] == [
        "logits",
        "present.0.key",
        "present.0.value",
    ]
    if app != "onnxruntime-react-native":  # which has all in one file
        path = bundle.folder / bundle.manifest["main"]
        assert bundle.manifest["external_data"] == [
            {"path": f"{path.name}_data", "data": f"{bundle.manifest['main']}_data"}
        ]
        assert onnx_model(path).data_files == [f"{path.name}_data"]


def test_transformers_js_gets_its_names_and_plain_operators(onnx: Path, tmp_path: Path) -> None:
    bundle = pack(onnx, find("transformers.js"), tmp_path)
    assert bundle.manifest["main"] == "onnx/model_quantized.onnx"
    config = json.loads((bundle.folder / "config.json").read_text())
    settings = config.pop("transformers.js_config")
    assert config == CONFIG
    assert settings == {"dtype": "q8", "use_external_data_format": {"model_quantized.onnx": 1}}
    model = read_model(bundle.folder / bundle.manifest["main"])
    assert "GatherBlockQuantized" not in {node.op_type for node in model.graph}
    assert str(model.graph.inputs[1].shape[0]) == "batch_size"


def test_a_plain_graph_is_linked_and_not_copied(tmp_path: Path) -> None:
    path = _write_onnx(tmp_path, _graph(cache=False, blocks=False))
    bundle = pack(path, find("transformers.js"), tmp_path)
    assert bundle.manifest["main"] == "onnx/model.onnx"
    assert (bundle.folder / "onnx/model.onnx").samefile(path)


def test_wllama_gets_shards(gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limit = 16_000
    monkeypatch.setattr(wllama, "SHARD_BYTES", limit)
    bundle = pack(gguf, find("wllama"), tmp_path)
    files = sorted(bundle.folder.glob("*.gguf"))
    assert len(files) > 1
    assert bundle.manifest["main"] == files[0].name == f"Tiny-Llama-1-Q8_0-00001-of-{len(files):05}.gguf"
    assert max(path.stat().st_size for path in files) <= limit
    assert not bundle.errors() + bundle.warnings()


def test_ollama_gets_the_context_that_was_planned(gguf: Path, tmp_path: Path) -> None:
    for record, context in ((None, 64), ({"target": {"context": 48, "reason": "fastest"}}, 48)):
        bundle = pack(gguf, find("ollama"), tmp_path, record=record, force=True)
        folder = bundle.folder
        assert bundle.manifest["target"] == (record and {"context": 48})
        assert f"PARAMETER num_ctx {context}\n" in (folder / "Modelfile").read_text()


def _gone(folder: Path) -> None:
    next(folder.rglob("*.gguf")).unlink()


def _cut(folder: Path) -> None:
    path = next(folder.rglob("*.gguf"))
    content = path.read_bytes()[:-64]
    path.unlink()  # it is linked to the source
    path.write_bytes(content)


def _shard(folder: Path) -> None:
    path = next(folder.rglob("*.gguf"))
    path.rename(path.with_name("x-00002-of-00003.gguf"))


@pytest.mark.parametrize("app", GGUF)
@pytest.mark.parametrize("spoil", [_gone, _cut, _shard])
def test_a_spoiled_gguf_bundle(gguf: Path, tmp_path: Path, app: str, spoil: Callable[[Path], None]) -> None:
    folder = pack(gguf, find(app), tmp_path).folder
    spoil(folder)
    assert _errors(folder, app)
    (folder / NAME).unlink()  # the layout's own lint sees it, too
    assert _errors(folder, app)


def test_what_single_lints_say(gguf: Path, tmp_path: Path) -> None:
    loose = pack(gguf, find("lm-studio"), tmp_path).folder
    shutil.copy(gguf, loose / "loose.gguf")
    assert any("does not look" in line for line in _errors(loose, "lm-studio"))
    ollama = pack(gguf, find("ollama"), tmp_path).folder
    (ollama / "Modelfile").write_text("FROM ../../etc/passwd\n")
    assert any("no file of this folder" in line for line in _errors(ollama, "ollama"))


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda folder: (folder / "config.json").unlink(), "config.json: cannot be read"),
        (lambda folder: (folder / "config.json").write_text("{}"), "has no model_type"),
        (lambda folder: (folder / "config.json").write_text(json.dumps(CONFIG)), "config.json declares 0"),
        (lambda folder: (folder / "tokenizer.json").unlink(), "tokenizer.json: is missing"),
        (lambda folder: (folder / "onnx/model_quantized.onnx_data").unlink(), "which is missing"),
        (lambda folder: (folder / "onnx").rename(folder / "graphs"), "onnx: holds no ONNX graph"),
    ],
)
def test_what_transformers_js_would_not_load(
    onnx: Path, tmp_path: Path, spoil: Callable[[Path], None], said: str
) -> None:
    folder = pack(onnx, find("transformers.js"), tmp_path).folder
    (folder / NAME).unlink()
    spoil(folder)
    assert any(said in line for line in _errors(folder, "transformers.js"))


def test_a_folder_made_by_hand_is_told_of_its_operators_and_axes(onnx: Path, tmp_path: Path) -> None:
    (tmp_path / "onnx").mkdir()
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(onnx.with_name(name), tmp_path / name)
    model = _graph(cache=True, blocks=True)
    save_model(model, tmp_path / "onnx/model_quantized.onnx", force=True)
    errors = _errors(tmp_path, "transformers.js")
    assert any("GatherBlockQuantized" in line for line in errors)
    assert any("batch_size" in line for line in errors)


@pytest.mark.parametrize(
    ("name", "said"), [("tokenizer.json", "reads tokens"), ("model.onnx_data", "which is missing")]
)
def test_what_onnx_runtime_would_not_load(onnx: Path, tmp_path: Path, name: str, said: str) -> None:
    folder = pack(onnx, find("onnxruntime"), tmp_path).folder
    (folder / NAME).unlink()
    (folder / name).unlink()
    assert any(said in line for line in _errors(folder, "onnxruntime"))


def test_a_react_native_bundle_without_its_description(onnx: Path, tmp_path: Path) -> None:
    folder = pack(onnx, find("onnxruntime-react-native"), tmp_path).folder
    manifest = json.loads((folder / NAME).read_text())
    manifest["inputs"].pop()
    (folder / NAME).write_text(json.dumps(manifest))
    assert any("other inputs" in line for line in _errors(folder, "onnxruntime-react-native"))


def test_a_changed_file_is_found_by_its_hash(gguf: Path, tmp_path: Path) -> None:
    folder = pack(gguf, find("llama.rn"), tmp_path).folder
    path = next(folder.glob("*.gguf"))
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.unlink()
    path.write_bytes(content)
    assert [line for line in _errors(folder, "llama.rn") if "SHA-256" in line]


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.pop("main"),
        lambda m: m.update(main="other.gguf"),
        lambda m: m.update(files=[]),
        lambda m: m["files"].update({"../x": {"bytes": 1, "sha256": "0" * 64}}),
        lambda m: m["files"].update({"a\nb": {"bytes": 1, "sha256": "0" * 64}}),
        lambda m: m["files"].update({"x" * 300: {"bytes": 1, "sha256": "0" * 64}}),
        lambda m: m["files"].update({"/x": {"bytes": 1, "sha256": "0" * 64}}),
        lambda m: m["files"].update({"x": {"bytes": 1, "sha256": "zz"}}),
        lambda m: m["files"].update({"x": None}),
    ],
)
def test_a_hostile_manifest_is_refused(
    gguf: Path, tmp_path: Path, change: Callable[[dict[str, object]], object]
) -> None:
    folder = pack(gguf, find("llama.rn"), tmp_path).folder
    manifest = json.loads((folder / NAME).read_text())
    change(manifest)
    (folder / NAME).write_text(json.dumps(manifest))
    with pytest.raises(FormatError):
        read_manifest(folder)


def test_only_a_bundle_is_replaced_and_only_when_asked(gguf: Path, tmp_path: Path) -> None:
    app = find("llama.rn")
    (tmp_path / "llama.rn").mkdir()
    (tmp_path / "llama.rn/mine.txt").write_text("x")
    with pytest.raises(EdgeqError, match="no bundle"):
        pack(gguf, app, tmp_path, force=True)
    (tmp_path / "llama.rn/mine.txt").unlink()
    pack(gguf, app, tmp_path)
    with pytest.raises(OutputExistsError):
        pack(gguf, app, tmp_path)
    pack(gguf, app, tmp_path, force=True)
    assert [path.name for path in tmp_path.iterdir()] == ["llama.rn"]


def test_a_failure_leaves_nothing(gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(write, "place", fail)
    with pytest.raises(EdgeqError, match="No space left"):
        pack(gguf, find("llama.rn"), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_wrong_words(gguf: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="edgeq plan"):
        find("ios")
    with pytest.raises(UsageError, match=r"there are edgeq, llama\.rn"):
        find("llama")
    with pytest.raises(UsageError, match="loads ONNX"):
        pack(gguf, find("transformers.js"), tmp_path)
    with pytest.raises(InputError):
        lint(tmp_path / "nothing", find("ollama"))


def test_the_record_of_other_bytes_is_not_taken(gguf: Path, tmp_path: Path) -> None:
    copy = tmp_path / "model.gguf"
    shutil.copy(gguf, copy)
    record = {"file": copy.name, "sha256": {copy.name: "0" * 64}, "proof": {"kl_mean": 0.1}, "gates": []}
    (tmp_path / "edgeq.json").write_text(json.dumps({"exports": [record]}))
    assert recorded(copy) is None
    from edgeq.file_hash import sha256

    record["sha256"] = {copy.name: sha256(copy)}
    (tmp_path / "edgeq.json").write_text(json.dumps({"exports": [record]}))
    bundle = pack(copy, find("llama.rn"), tmp_path, record=recorded(copy))
    assert (bundle.manifest["proof"], bundle.manifest["gates"]) == ({"kl_mean": 0.1}, [])
    note_gates(bundle.folder, ["too large"])
    assert read_manifest(bundle.folder) == bundle.manifest | {"gates": ["too large"]}
    assert not _errors(bundle.folder, "llama.rn")


@pytest.mark.parametrize(
    ("dtype", "name"), [(np.float32, "float32"), (np.float16, "float16"), (np.int8, "q8")]
)
def test_precision(dtype: type, name: str) -> None:
    b = Tiny()
    b.output(b.op("Cast", b.const("w", np.ones((64, 64), dtype)), to=1), "y", ir.DataType.FLOAT, [64, 64])
    assert precision(b.model("test")) == name
