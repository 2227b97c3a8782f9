"""``edgeq.load`` of encoders: vectors, labels of texts and of tokens."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgeq
from edgeq.engine import model as engine
from edgeq.errors import InputError
from edgeq.runtimes.onnxruntime import OnnxSession

Folder = Callable[[str], Path]
UNIGRAM = Path(__file__).parents[1] / "assets/unigram"


def test_classify(encoder_folder: Folder, make_gguf: Any, make_onnx: Any) -> None:
    folder = encoder_folder("bert-sequence")
    texts: list[str | tuple[str, str]] = ["the rat sat", ("the rat", "ran to the hat")]
    with edgeq.load(folder, threads=1) as model:
        scores = model.classify(texts)
        assert [list(one) for one in scores] == [["bad", "so so", "good"]] * 2
        assert all(sum(one.values()) == pytest.approx(1) for one in scores)
        encoded = model.tokenizer.encode("the rat", "ran to the hat")
        with pytest.raises(InputError, match="take classify"):
            model.tag("the rat")
        with pytest.raises(InputError, match="is an encoder"):
            model.generate("the rat")
    feeds = {
        "input_ids": np.array([encoded.ids]),
        "attention_mask": np.ones((1, len(encoded.ids)), np.int64),
        "token_type_ids": np.array([encoded.type_ids]),
    }
    (logits,) = OnnxSession(make_onnx(folder, "float32"), threads=1).run(feeds, ["logits"])
    shares = np.exp(logits[0]) / np.exp(logits[0]).sum()
    assert list(scores[1].values()) == pytest.approx(shares.tolist(), abs=1e-4)
    with edgeq.load(make_gguf(folder, "F32"), threads=1) as model:
        again = model.classify(texts)
    for one, other in zip(scores, again, strict=True):
        assert one == pytest.approx(other, abs=1e-4)


def test_tag(encoder_folder: Folder) -> None:
    folder = encoder_folder("bert-tokens")
    with edgeq.load(folder, threads=1) as model:
        tags = model.tag("the Rat sat")
        ids = model.tokenizer.encode("the Rat sat").ids
        with pytest.raises(InputError, match="take tag"):
            model.classify(["the rat"])
    assert "".join(piece for piece, _, _ in tags) == "theRatsat"
    by_token = engine.open_model(folder).classify(ids)[1:-1]  # without [CLS] and [SEP]
    expected = [max(scores.items(), key=lambda item: item[1]) for scores in by_token]
    assert [(label, score) for _, label, score in tags] == [
        (label, pytest.approx(one)) for label, one in expected
    ]


def test_other_models(encoder_folder: Folder, tinylm: Path) -> None:
    for folder in (encoder_folder("bert"), tinylm):
        with edgeq.load(folder, threads=1) as model:
            with pytest.raises(InputError, match="has no classifier"):
                model.classify(["x"])
            with pytest.raises(InputError, match="has no classifier"):
                model.tag("x")


def test_texts_of_a_unigram_vocabulary(encoder_folder: Folder, make_gguf: Any, tmp_path: Path) -> None:
    """A directory and the GGUF file made of it read a text alike, its table of replacements with it."""
    folder = tmp_path / "model"
    shutil.copytree(encoder_folder("xlm-roberta"), folder)
    vocabulary = json.loads((UNIGRAM / "tokenizer.json").read_text(encoding="utf-8"))
    vocabulary["model"]["vocab"] = [*vocabulary["model"]["vocab"][:319], ["<mask>", 0.0]]
    vocabulary["added_tokens"][-1]["id"] = 319
    (folder / "tokenizer.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    texts = ["  Ｔｈｅ ﬁrst\n① ", "self, text", "x" * 2000]
    with edgeq.load(folder, threads=1) as model:
        expected = model.embed(texts)
        ids = [model.tokenizer.encode(text).ids for text in texts]
    with edgeq.load(make_gguf(folder, "F32"), threads=1) as model:
        assert [model.tokenizer.encode(text).ids for text in texts] == ids
        assert np.abs(model.embed(texts) - expected).max() <= 1e-5
    assert np.linalg.norm(expected, axis=1) == pytest.approx([1, 1, 1], abs=1e-5)
