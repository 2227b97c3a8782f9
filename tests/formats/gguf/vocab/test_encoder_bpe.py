"""Byte-level BPE of encoders: RoBERTa's and ModernBERT's kind, with a token before and after each text."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from edgeq.formats.gguf.vocab import tokenizer_from_metadata, tokenizer_metadata

BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
IDS = {"<s>": 1, "<|endoftext|>": 0}
ROBERTA = {
    "type": "RobertaProcessing",
    "sep": ["<|endoftext|>", 0],
    "cls": ["<s>", 1],
    "trim_offsets": True,
    "add_prefix_space": False,
}
BERT = {
    "type": "TemplateProcessing",
    "single": [
        {"SpecialToken": {"id": "<s>", "type_id": 0}},
        {"Sequence": {"id": "A", "type_id": 0}},
        {"SpecialToken": {"id": "<|endoftext|>", "type_id": 0}},
    ],
    "pair": [
        {"SpecialToken": {"id": "<s>", "type_id": 0}},
        {"Sequence": {"id": "A", "type_id": 0}},
        {"SpecialToken": {"id": "<|endoftext|>", "type_id": 0}},
        {"Sequence": {"id": "B", "type_id": 1}},
        {"SpecialToken": {"id": "<|endoftext|>", "type_id": 1}},
    ],
    "special_tokens": {token: {"id": token, "ids": [i], "tokens": [token]} for token, i in IDS.items()},
}


@pytest.mark.parametrize(
    ("normalizer", "post_processor", "pre", "separated"),
    [(None, ROBERTA, "gpt-2", True), ({"type": "NFC"}, BERT, "olmo", False)],
)
def test_ids_are_those_of_llama_cpp(
    normalizer: Any,
    post_processor: Any,
    pre: str,
    separated: bool,
    train: Callable[..., Path],
    llama_encode: Any,
    texts: list[str],
    docstrings: list[str],
) -> None:
    folder = train(BYTES, normalizer=normalizer, post_processor=post_processor)
    named = {"cls_token": "<s>", "sep_token": "<|endoftext|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(named))
    metadata = tokenizer_metadata(folder)
    assert metadata["tokenizer.ggml.pre"] == pre
    flags = [metadata[f"tokenizer.ggml.add_{kind}_token"] for kind in ("bos", "eos", "sep")]
    assert flags == [
        True,
        True,
        separated,
    ]  # what stands between two texts is an eos, and a sep where RoBERTa's does
    ids = {role: metadata[f"tokenizer.ggml.{role}_token_id"] for role in ("bos", "eos", "seperator")}
    assert ids == {"bos": 1, "eos": 0, "seperator": 0}
    original = Tokenizer.from_file(str(folder / "tokenizer.json"))
    restored, encode = tokenizer_from_metadata(metadata), llama_encode(metadata)
    for text in [*texts, *docstrings[:1], "", "a<tool>b"]:
        expected = original.encode(text).ids
        assert (expected[0], expected[-1]) == (1, 0)
        assert encode(text, add_special=True) == restored.encode(text).ids == expected
