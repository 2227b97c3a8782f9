"""``edgeq.load``: texts, logits and vectors from Python."""

from __future__ import annotations

import itertools
import json
import shutil
import subprocess
import sys
from pathlib import Path

import heldout
import numpy as np
import pytest
from oracle import chats

import edgeq
from edgeq.engine import model as engine
from edgeq.errors import InputError, UsageError
from edgeq.source import SourceModel

PROMPT = "def main("


def test_generate_is_the_text_of_greedy_tokens(tinylm: Path) -> None:
    with edgeq.load(tinylm) as model:
        text = model.generate(PROMPT, max_tokens=12)
        assert "".join(model.stream(PROMPT, max_tokens=12)) == text
        ids = model.tokenizer.encode(PROMPT).ids
        for _ in range(12):
            ids.append(int(model.logits(ids)[-1].argmax()))
        assert model.tokenizer.decode(ids) == PROMPT + text


def test_stop_strings_end_the_text(tinylm: Path) -> None:
    with edgeq.load(tinylm) as model:
        whole = model.generate(PROMPT, max_tokens=24)
        cut = whole[3:6]
        assert model.generate(PROMPT, max_tokens=24, stop=[cut]) == whole[: whole.index(cut)]


def test_sampling_options_are_the_samplers(tinylm: Path, make_gguf) -> None:
    with edgeq.load(make_gguf(tinylm, "Q8_0")) as model:
        texts = [model.generate(PROMPT, 16, temperature=1.5, seed=seed) for seed in (3, 3, 4)]
        assert texts[0] == texts[1] != texts[2]
        assert model.generate(PROMPT, 16, temperature=1.5, min_p=1.0) == model.generate(PROMPT, 16)
        with pytest.raises(UsageError):
            model.generate(PROMPT, min_p=2.0)


def test_streams_of_one_model_do_not_disturb_each_other(tinylm: Path) -> None:
    with edgeq.load(tinylm) as model:
        prompts = (PROMPT, "import ")
        alone = [model.generate(prompt, 10) for prompt in prompts]
        streams = [model.stream(prompt, 10) for prompt in prompts]
        turns = list(itertools.zip_longest(*streams, fillvalue=""))
        assert ["".join(pieces) for pieces in zip(*turns, strict=True)] == alone


def test_embed_gives_the_vectors_of_the_encoder(minilm: Path) -> None:
    sentences = heldout.sentences().test[:3]
    long = "word " * 2000
    with edgeq.load(minilm) as model:
        vectors = model.embed([*sentences, long])
        assert vectors.shape == (4, 384)
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
        expected = engine.from_source(SourceModel.open(minilm)).embed(
            model.tokenizer.encode(sentences[1]).ids
        )
        np.testing.assert_array_equal(vectors[1], expected)
        with pytest.raises(InputError, match="encoder"):
            model.generate("text")


def test_chat_answers_through_the_template(tinylm: Path, tmp_path: Path) -> None:
    folder = tmp_path / "chat"
    shutil.copytree(tinylm, folder)
    config = json.loads((folder / "tokenizer_config.json").read_text("utf-8"))
    config["chat_template"] = "{% for m in messages %}{{ m.content }}{% endfor %}"
    (folder / "tokenizer_config.json").write_text(json.dumps(config), "utf-8")
    with edgeq.load(folder) as model:
        assert model.chat([{"role": "user", "content": PROMPT}], 8) == model.generate(PROMPT, 8)
    with edgeq.load(tinylm) as model, pytest.raises(InputError, match="no chat template"):
        model.chat(chats.CONVERSATIONS["one"])


@pytest.mark.parametrize("name", ["model.onnx", "absent.gguf", "absent"])
def test_what_cannot_be_loaded_is_an_input_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=f"{name}: no such file"):
        edgeq.load(tmp_path / name)


def test_importing_edgeq_imports_nothing_heavy() -> None:
    code = "import edgeq, sys; print(sorted(m for m in ('numpy', 'numba', 'tokenizers', 'jinja2') if m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
