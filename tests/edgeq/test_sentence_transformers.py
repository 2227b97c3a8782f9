"""sentence-transformers directories: pooling and unit length in the engine, in ONNX and in GGUF."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import llama_probe
import numpy as np
import pytest
from oracle import encoder_tokenizers, encoders, models

from edgeq.convert.checkpoint_rows import CheckpointRows
from edgeq.engine import model as engine
from edgeq.errors import FormatError, InputError
from edgeq.evaluation.metrics import cosines
from edgeq.formats.gguf.reader import GGUFFile
from edgeq.runtimes.onnxruntime import OnnxSession, encoder_feeds
from edgeq.sentence_transformers import Modules, read_modules
from edgeq.source import SourceModel

MakeModel = Callable[..., Path]
TYPE = "sentence_transformers.models."
SWITCHES = {
    "mean": "pooling_mode_mean_tokens",
    "cls": "pooling_mode_cls_token",
    "max": "pooling_mode_max_tokens",
    "last": "pooling_mode_lasttoken",
}


@pytest.fixture
def modules(tmp_path: Path) -> Callable[..., Path]:
    """(pooling's config.json, kinds of the modules after it, **changes of its entry) → a folder."""

    def make(config: dict[str, Any], *after: str, folder: Path | None = None, **entry: Any) -> Path:
        folder = folder or tmp_path
        (folder / "1_Pooling").mkdir(exist_ok=True)
        (folder / "1_Pooling/config.json").write_text(json.dumps({"word_embedding_dimension": 64} | config))
        listed = [{"idx": 0, "name": "0", "path": "", "type": TYPE + "Transformer"}]
        listed.append({"idx": 1, "name": "1", "path": "1_Pooling", "type": TYPE + "Pooling"} | entry)
        listed += [{"idx": 2, "name": "2", "path": f"2_{kind}", "type": TYPE + kind} for kind in after]
        (folder / "modules.json").write_text(json.dumps(listed))
        return folder

    return make


@pytest.fixture
def bert(tmp_path: Path, modules: Callable[..., Path]) -> MakeModel:
    """The tiny BERT of the oracle in such a directory."""

    def make(config: dict[str, Any], *after: str, name: str = "bert") -> Path:
        folder = tmp_path / "model"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        models.write_checkpoint(folder, name, models.stored_shapes()[name], encoders.MODELS[name])
        encoder_tokenizers.write(folder, "bert", models.VOCAB)
        return modules(config, *after, folder=folder)

    return make


@pytest.mark.parametrize(
    ("config", "pooling"),
    [
        *(({switch: True}, pooling) for pooling, switch in SWITCHES.items()),
        ({"pooling_mode": "lasttoken"}, "last"),
        ({"pooling_mode": ["cls"]}, "cls"),
        (dict.fromkeys(SWITCHES.values(), False) | {"pooling_mode_max_tokens": True}, "max"),
    ],
)
def test_poolings(config: dict[str, Any], pooling: Any, modules: Callable[..., Path]) -> None:
    assert read_modules(modules(config)) == Modules(pooling, normalised=False)
    assert read_modules(modules(config, "Dropout", "Normalize")) == Modules(pooling, normalised=True)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({}, "pooling_mode is none"),
        ({"pooling_mode_weightedmean_tokens": True}, "pooling_mode is weightedmean"),
        ({SWITCHES["mean"]: True, SWITCHES["cls"]: True}, "pooling_mode is mean and cls"),
        ({"pooling_mode": ["mean", "max"]}, "pooling_mode is mean and max"),
        ({"pooling_mode": 7}, "pooling_mode is 7"),
    ],
)
def test_poolings_that_are_not_exported(
    config: dict[str, Any], said: str, modules: Callable[..., Path]
) -> None:
    folder = modules(config)
    with pytest.raises(FormatError, match=said) as caught:
        read_modules(folder)
    assert str(caught.value).startswith(str(folder / "1_Pooling/config.json"))


@pytest.mark.parametrize("kind", ["LSTM", ""])
def test_modules_that_are_not_exported(kind: str, modules: Callable[..., Path]) -> None:
    folder = modules({SWITCHES["mean"]: True}, kind)
    with pytest.raises(FormatError, match=f"module 2 is a {kind or 'module without a type'}") as caught:
        read_modules(folder)
    assert str(caught.value).startswith(str(folder / "modules.json"))


def test_other_entries(modules: Callable[..., Path], tmp_path: Path) -> None:
    assert read_modules(tmp_path) is None
    with pytest.raises(FormatError, match="leaves the folder"):
        read_modules(modules({SWITCHES["mean"]: True}, path="../other"))
    with pytest.raises(FormatError, match="cannot be read"):
        read_modules(modules({SWITCHES["mean"]: True}, path="3_Pooling"))
    (tmp_path / "modules.json").write_text('["Pooling"]')
    with pytest.raises(FormatError, match="module 0"):
        read_modules(tmp_path)
    (tmp_path / "modules.json").write_text("[]")
    assert read_modules(tmp_path) is None


@pytest.mark.parametrize("pooling", SWITCHES)
@pytest.mark.parametrize("after", [(), ("Normalize",)])
def test_engine_and_onnx(pooling: str, after: tuple[str, ...], bert: MakeModel, make_onnx: Any) -> None:
    folder = bert({SWITCHES[pooling]: True}, *after)
    model, tokens = engine.open_model(folder), encoders.tokens("bert")
    texts = [tokens[:60], tokens[60:67], tokens[67:]]
    by_hand = {
        "mean": lambda h: h.mean(0),
        "cls": lambda h: h[0],
        "max": lambda h: h.max(0),
        "last": lambda h: h[-1],
    }
    expected = np.stack([by_hand[pooling](model.hidden(text)) for text in texts])
    if after:
        expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    assert np.abs(np.stack([model.embed(text) for text in texts]) - expected).max() <= 1e-5
    session = OnnxSession(make_onnx(folder, "float32"), threads=1)
    assert session.outputs == ["last_hidden_state", "sentence_embedding"]
    (together,) = session.run(encoder_feeds(texts), ["sentence_embedding"])
    assert np.abs(together - expected).max() <= 1e-4
    for row, text in enumerate(texts):
        (alone,) = session.run(encoder_feeds([text]), ["sentence_embedding"])
        assert np.abs(alone[0] - together[row]).max() <= 1e-4


def test_the_last_token_of_a_left_padded_text(bert: MakeModel, make_onnx: Any) -> None:
    session = OnnxSession(make_onnx(bert({SWITCHES["last"]: True}), "float32"), threads=1)
    feeds = encoder_feeds([encoders.tokens("bert")[:9]])
    feeds["attention_mask"][0, :3] = 0
    hidden, pooled = session.run(feeds, ["last_hidden_state", "sentence_embedding"])
    assert np.array_equal(pooled[0], hidden[0, -1])
    feeds["attention_mask"][0, 5:] = 0
    hidden, pooled = session.run(feeds, ["last_hidden_state", "sentence_embedding"])
    assert np.array_equal(pooled[0], hidden[0, 4])


@pytest.mark.parametrize(("pooling", "number"), [("mean", 1), ("cls", 2), ("last", 3)])
def test_gguf(pooling: str, number: int, bert: MakeModel, make_gguf: Any) -> None:
    pytest.importorskip("llama_cpp")
    folder = bert({SWITCHES[pooling]: True}, "Normalize")
    path = make_gguf(folder, "F32")
    model, texts = engine.open_model(folder), [encoders.tokens("bert")[:60], encoders.tokens("bert")[60:67]]
    expected = np.stack([model.embed(text) for text in texts])
    with GGUFFile.open(path) as file:
        assert file.metadata["bert.pooling_type"] == number
        again = engine.from_gguf(file)
        assert np.abs(np.stack([again.embed(text) for text in texts]) - expected).max() <= 1e-5
    ((vectors, warnings),) = llama_probe.probe_encoders(256, [(path, texts)])
    assert warnings == []
    assert cosines(vectors, expected).min() >= 0.9999


def test_what_gguf_has_not(bert: MakeModel) -> None:
    rows = CheckpointRows(SourceModel.open(bert({SWITCHES["max"]: True})))
    with pytest.raises(InputError, match=r"pooling_mode max is not in llama\.cpp; ONNX has it"):
        rows.metadata()


def test_a_directory_that_pools_classifies_nothing(bert: MakeModel) -> None:
    """Its checkpoint may still have the head that it was trained with."""
    source = SourceModel.open(bert({SWITCHES["cls"]: True}, name="bert-sequence"))
    assert (source.hp.head, source.hp.labels, source.hp.pooling) == ("none", (), "cls")
    assert "classifier.weight" in source.unused
    assert engine.from_source(source).embed([5, 6]).shape == (64,)
