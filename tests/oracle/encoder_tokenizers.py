"""Tokenizers of a few hundred tokens for the tiny encoders, in tokenizer.json's form: each of its family's kind."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgeq.formats.gguf.vocab.bpe import BYTE_CHARACTERS

_CHARACTERS = "abcdefghijklmnopqrstuvwxyz0123456789.,;:!?'()-_=+*/<>[]{}#%&@"
_FREQUENT = "etaoinshr"
_PAIRS = [a + b for a in _FREQUENT for b in _FREQUENT]


def added(tokens: dict[str, int], stripped: Sequence[str] = ()) -> list[dict[str, Any]]:
    """tokenizer.json's list of special tokens; those ``stripped`` take the white space before them."""
    flags = {"special": True, "single_word": False, "rstrip": False, "normalized": False}
    return [{"id": i, "content": text, "lstrip": text in stripped, **flags} for text, i in tokens.items()]


def around(before: str, after: str, ids: dict[str, int]) -> dict[str, Any]:
    """A post-processor that adds a token before and after a text; between two texts BERT has one, RoBERTa two."""

    def token(text: str, segment: int = 0) -> dict[str, Any]:
        return {"SpecialToken": {"id": text, "type_id": segment}}

    def text(name: str, segment: int = 0) -> list[dict[str, Any]]:
        return [{"Sequence": {"id": name, "type_id": segment}}, token(after, segment)]

    second = [token(after), *text("B")] if after == "</s>" else text("B", 1)
    return {
        "type": "TemplateProcessing",
        "single": [token(before), *text("A")],
        "pair": [token(before), *text("A"), *second],
        "special_tokens": {one: {"id": one, "ids": [ids[one]], "tokens": [one]} for one in (before, after)},
    }


def word_piece(size: int) -> dict[str, Any]:
    """BERT's: lower case, ``##`` within a word."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    parts = [*_CHARACTERS, *("##" + c for c in _CHARACTERS), *("##" + pair for pair in _PAIRS), *_PAIRS]
    vocab = {token: i for i, token in enumerate([*special, *parts][:size])}
    return {
        "version": "1.0",
        "added_tokens": added({token: vocab[token] for token in special}),
        "normalizer": {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "lowercase": True},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": around("[CLS]", "[SEP]", vocab),
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
        "model": {
            "type": "WordPiece", "vocab": vocab, "unk_token": "[UNK]", "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
        },
    }  # fmt: skip


def _byte_level(size: int, special: list[str], last: str) -> tuple[dict[str, int], list[list[str]]]:
    """The bytes and pairs of frequent letters between ``special`` and ``last``."""
    letters = sorted(BYTE_CHARACTERS)
    pairs = _PAIRS[: size - len(letters) - len(special) - 1]
    vocab = {token: i for i, token in enumerate([*special, *letters, *pairs, last])}
    return vocab, [list(pair) for pair in pairs]


def roberta(size: int) -> dict[str, Any]:
    """GPT-2's bytes, with a token before and after."""
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    vocab, merges = _byte_level(size, special, "<mask>")
    bytes_ = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return {
        "version": "1.0",
        "added_tokens": added({token: vocab[token] for token in (*special, "<mask>")}, ["<mask>"]),
        "normalizer": None,
        "pre_tokenizer": bytes_,
        "post_processor": {
            "type": "RobertaProcessing", "sep": ["</s>", 2], "cls": ["<s>", 0], "trim_offsets": True,
            "add_prefix_space": False,
        },
        "decoder": bytes_,
        "model": {"type": "BPE", "vocab": vocab, "merges": merges},
    }  # fmt: skip


def modern_bert(size: int) -> dict[str, Any]:
    """GPT-2's bytes after NFC, with BERT's special tokens."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    vocab, merges = _byte_level(size, special, "[MASK]")
    return roberta(size) | {
        "added_tokens": added({token: vocab[token] for token in (*special, "[MASK]")}, ["[MASK]"]),
        "normalizer": {"type": "NFC"},
        "post_processor": around("[CLS]", "[SEP]", vocab),
        "model": {"type": "BPE", "vocab": vocab, "merges": merges},
    }


def unigram(size: int) -> dict[str, Any]:
    """XLM-RoBERTa's: tokens with scores, without a table that normalises."""
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    scored = [("▁", -2.0), *((c, -6.0 - i / 16) for i, c in enumerate(_CHARACTERS))]
    scored += [(pair, -8.0 - i / 32) for i, pair in enumerate(_PAIRS)]
    scored += [("▁" + pair, -9.0 - i / 32) for i, pair in enumerate(_PAIRS)]
    scored = [*((token, 0.0) for token in special), *scored]
    scored += [
        (f"{a}{b}", -12.0 - i / 64) for i, (a, b) in enumerate((a, b) for a in "xyz" for b in _CHARACTERS)
    ]
    vocab = [*scored[: size - 1], ("<mask>", 0.0)]
    ids = {token: i for i, (token, _) in enumerate(vocab)}
    space = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}
    return {
        "version": "1.0",
        "added_tokens": added({token: ids[token] for token in (*special, "<mask>")}, ["<mask>"]),
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, space]},
        "post_processor": around("<s>", "</s>", ids),
        "decoder": space,
        "model": {
            "type": "Unigram",
            "unk_id": 3,
            "vocab": [list(pair) for pair in vocab],
            "byte_fallback": False,
        },
    }


_BERT = {
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "pad_token": "[PAD]",
    "mask_token": "[MASK]",
    "unk_token": "[UNK]",
}
_ROBERTA = {"bos_token": "<s>", "eos_token": "</s>", "cls_token": "<s>", "sep_token": "</s>", "pad_token": "<pad>",
            "mask_token": "<mask>", "unk_token": "<unk>"}  # fmt: skip
_BY_MODEL_TYPE = {
    "bert": (word_piece, _BERT),
    "distilbert": (word_piece, _BERT),
    "nomic_bert": (word_piece, _BERT),
    "modernbert": (modern_bert, _BERT),
    "roberta": (roberta, _ROBERTA),
    "xlm-roberta": (unigram, _ROBERTA),
    "camembert": (unigram, _ROBERTA),
}


def write(folder: Path, model_type: str, size: int) -> None:
    """tokenizer.json and tokenizer_config.json of that family's kind."""
    make, named = _BY_MODEL_TYPE[model_type]
    (folder / "tokenizer.json").write_text(json.dumps(make(size)), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(named))
