"""SentencePiece's BPE: Llama 2's and Gemma's kind of tokenizer.json, in llama.cpp and back."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, trainers

from edgeq.formats.gguf.vocab import UnsupportedTokenizerError, tokenizer_from_metadata, tokenizer_metadata
from edgeq.formats.gguf.vocab.sentencepiece import BYTES, SPACE

Make = Callable[..., Path]
PREPEND = {"type": "Prepend", "prepend": SPACE}
REPLACE = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
METASPACE = {"type": "Metaspace", "replacement": SPACE, "prepend_scheme": "always", "split": False}
GEMMA_SPLIT = {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False}
LLAMA = {"normalizer": {"type": "Sequence", "normalizers": [PREPEND, REPLACE]}, "pre_tokenizer": None}
GEMMA = {"normalizer": REPLACE, "pre_tokenizer": GEMMA_SPLIT}
MISTRAL = {"normalizer": None, "pre_tokenizer": METASPACE}
BOS = {
    "type": "TemplateProcessing",
    "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
    "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
    "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}},
}


def _all_pairs(vocabulary: dict[str, int]) -> list[list[str]]:
    """As transformers lists the merges of a SentencePiece model: by result, then by the left token."""
    found = [
        (vocabulary[token], vocabulary[token[:cut]], [token[:cut], token[cut:]])
        for token in vocabulary
        for cut in range(1, len(token))
        if token[:cut] in vocabulary and token[cut:] in vocabulary
    ]
    return [pair for _, _, pair in sorted(found)]


@pytest.fixture
def make(tmp_path: Path, docstrings: list[str]) -> Make:
    """A tokenizer trained on prose and code, its merges those of a SentencePiece model."""

    def trained(steps: dict[str, Any], **model: Any) -> Path:
        base = {"type": "BPE", "vocab": {}, "merges": [], "byte_fallback": True, "unk_token": "<unk>"}
        tokenizer = Tokenizer.from_str(json.dumps({"version": "1.0", "model": base, **steps}))
        trainer = trainers.BpeTrainer(
            vocab_size=1200, show_progress=False, special_tokens=["<unk>", "<s>", "</s>", *BYTES], max_token_length=12
        )  # fmt: skip
        tokenizer.train_from_iterator([line for text in docstrings for line in text.splitlines()], trainer)
        described = json.loads(tokenizer.to_str())
        vocabulary = described["model"]["vocab"]
        described["model"] |= {"merges": _all_pairs(vocabulary), "fuse_unk": True, **model}
        # <0x00> … are tokens of the model, not special ones.
        described["added_tokens"] = [t for t in described["added_tokens"] if t["id"] < 3] + [
            {"id": len(vocabulary), "content": "<tool>", "special": False, "single_word": False, "lstrip": False,
             "rstrip": False, "normalized": False}
        ]  # fmt: skip
        described["post_processor"] = BOS
        (tmp_path / "tokenizer.json").write_text(json.dumps(described))
        (tmp_path / "tokenizer_config.json").write_text(json.dumps({"bos_token": "<s>", "eos_token": "</s>"}))
        return tmp_path

    return trained


@pytest.mark.parametrize(("steps", "prefix"), [(LLAMA, True), (GEMMA, False), (MISTRAL, True)])
def test_ids_are_those_of_llama_cpp(
    steps: dict[str, Any],
    prefix: bool,
    make: Make,
    llama_encode: Any,
    texts: list[str],
    docstrings: list[str],
) -> None:
    folder = make(steps)
    metadata = tokenizer_metadata(folder)
    assert metadata["tokenizer.ggml.model"] == "llama"
    assert metadata["tokenizer.ggml.add_space_prefix"] is prefix
    assert metadata["tokenizer.ggml.add_bos_token"] is True
    original = Tokenizer.from_file(str(folder / "tokenizer.json"))
    restored, encode = tokenizer_from_metadata(metadata), llama_encode(metadata)
    for text in [*texts, *docstrings, "", " ", "  two  ", "x\n\n\ty", "a<tool>b", "中文 😀 \x00\x1f"]:
        if steps is MISTRAL and text.startswith(" "):
            continue  # Metaspace adds no second space; SentencePiece and llama.cpp do
        ids = original.encode(text).ids
        if text:  # llama.cpp adds no space to an empty text, and neither does SentencePiece
            assert encode(text, add_special=True) == ids
        assert restored.encode(text).ids == ids


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"merges": []}, "model.merges lacks"),
        ({"dropout": 0.1}, "model.dropout"),
        ({"ignore_merges": True}, "model.ignore_merges"),
    ],
)
def test_models_that_llama_cpp_would_read_otherwise(make: Make, change: dict[str, Any], field: str) -> None:
    with pytest.raises(UnsupportedTokenizerError, match=field):
        tokenizer_metadata(make(LLAMA, **change))


@pytest.mark.parametrize(
    ("steps", "field"),
    [
        ({"normalizer": {"type": "Lowercase"}, "pre_tokenizer": METASPACE}, "normalizer is 'Lowercase'"),
        ({"normalizer": REPLACE, "pre_tokenizer": {"type": "Whitespace"}}, "pre_tokenizer is 'Whitespace'"),
        ({"normalizer": PREPEND, "pre_tokenizer": None}, "no step makes"),
    ],
)
def test_steps_that_are_not_sentencepieces(make: Make, steps: dict[str, Any], field: str) -> None:
    with pytest.raises(UnsupportedTokenizerError, match=field):
        tokenizer_metadata(make(steps))


def test_a_pair_out_of_order(make: Make) -> None:
    path = make(LLAMA) / "tokenizer.json"
    described = json.loads(path.read_text())
    merges = described["model"]["merges"]
    twice = next(i for i in range(1, len(merges)) if "".join(merges[i]) == "".join(merges[i - 1]))
    merges.append(merges.pop(twice))
    path.write_text(json.dumps(described))
    with pytest.raises(UnsupportedTokenizerError, match="at two places"):
        tokenizer_metadata(path.parent)
