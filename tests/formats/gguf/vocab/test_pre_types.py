"""Every name of the table against llama.cpp, token by token."""

from __future__ import annotations

import random
import unicodedata
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from edgeq.formats.gguf.vocab import PRE_TYPES, PreType, tokenizer_from_metadata, tokenizer_metadata
from edgeq.formats.gguf.vocab import regexes as r
from edgeq.formats.gguf.vocab.bpe import BYTE_CHARACTERS

# How the splits are spelled in published tokenizer.json files. What is not here is trained with the
# canonical spelling.
CL100K = "'(?i:[sdmt]|ll|ve|re)|[^\\r\\n\\p{L}\\p{N}]?+\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]++[\\r\\n]*"
CL100K += "|\\s*[\\r\\n]|\\s+(?!\\S)|\\s+"
LLAMA3 = (
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*"
)
LLAMA3 += "|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
NOT_UPPER = "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]"
LOWER = "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]"
O200K = f"{NOT_UPPER}*{LOWER}+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|{NOT_UPPER}+{LOWER}*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
O200K += "|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"


def split(regex: str, behavior: str = "Isolated", invert: bool = False) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": regex}, "behavior": behavior, "invert": invert}


def byte_level(use_regex: bool = False) -> dict[str, Any]:
    return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": use_regex}


def sequence(*steps: dict[str, Any]) -> dict[str, Any]:
    return {"type": "Sequence", "pretokenizers": list(steps)}


CODER = ["\\s?\\p{L}+", "\\s?\\p{P}+", "[一-龥ࠀ-一가-퟿]+"]
DIGITS = {"type": "Digits", "individual_digits": True}
SPELLINGS: list[tuple[str, dict[str, Any]]] = [
    ("gpt-2", byte_level(use_regex=True)),
    ("olmo", byte_level(use_regex=True)),
    ("smollm", sequence(DIGITS, byte_level(use_regex=True))),
    ("command-r", sequence(DIGITS, byte_level(use_regex=True))),
    ("llama-bpe", sequence(split(LLAMA3), byte_level())),
    ("llama-bpe", sequence(split(CL100K, "Removed", invert=True), byte_level())),
    ("dbrx", sequence(split(LLAMA3), byte_level())),
    ("qwen2", sequence(split(LLAMA3.replace("{1,3}", "")), byte_level())),
    ("deepseek-r1-qwen", sequence(split(CL100K.replace("{1,3}", "")), byte_level())),
    ("seed-coder", sequence(split(r.SEED_CODER.replace("|\\p{N}|", "|\\p{N}{1}|")), byte_level())),
    ("gpt-2", sequence(split(r.GPT2), byte_level())),
    ("deepseek-coder", sequence(split("[\r\n]"), *map(split, CODER), DIGITS, byte_level())),
    ("bloom", sequence(split(" ?[^(\\s|[.,!?…。，、।۔،])]+"), byte_level())),
    ("viking", sequence(split(" ?[^(\\s|[.,!?…。，、।۔،])]+"), DIGITS, byte_level())),
    ("gpt-4o", sequence(split(O200K, "Removed", invert=True), byte_level())),
]
NAMES = [(name, row) for row in PRE_TYPES for name in row.names]


def row_named(name: str) -> PreType:
    return next(row for row in PRE_TYPES if name in row.names)


def free_of_differences(row: PreType, texts: list[str]) -> list[str]:
    """The texts without the characters that `PreType.differs` is about."""

    def differs(char: str) -> bool:
        if char.isascii():
            return False
        if r.THOUSANDS in row.splits:
            return char.isdecimal()
        letter = char.lower() != char.upper() or unicodedata.category(char) in ("Mn", "Mc", "Ll", "Lu")
        return letter and bool({r.GPT4O, r.TEKKEN} & set(row.splits))

    return ["".join(char for char in text if not differs(char)) for text in texts]


def canonical(row: PreType) -> dict[str, Any]:
    return sequence(*map(split, row.splits), byte_level())


@pytest.mark.parametrize(
    ("name", "pre_tokenizer"), SPELLINGS + [(row.names[0], canonical(row)) for row in PRE_TYPES]
)
def test_trained_tokenizer_is_the_same_in_llama_cpp(
    name: str, pre_tokenizer: dict[str, Any], train: Callable[..., Path], llama_encode: Any, texts: list[str]
) -> None:
    row = row_named(name)
    normalizer = {"type": "NFC"} if row.nfc else None
    directory = train(pre_tokenizer, ignore_merges=row.ignore_merges, normalizer=normalizer)
    metadata = tokenizer_metadata(directory)
    twins = [
        t for t in PRE_TYPES if (t.splits, t.ignore_merges, t.nfc) == (row.splits, row.ignore_merges, row.nfc)
    ]
    assert metadata["tokenizer.ggml.pre"] == twins[0].names[0]

    original = Tokenizer.from_file(str(directory / "tokenizer.json"))
    restored, encode = tokenizer_from_metadata(metadata), llama_encode(metadata)
    for text in [*free_of_differences(row, texts), "a<tool> b<|endoftext|><s>c"]:
        ids = original.encode(text).ids
        assert restored.encode(text).ids == ids
        assert encode(text) == ids, f"{name}: {text!r}"
        assert restored.decode(ids, skip_special_tokens=False) == original.decode(
            ids, skip_special_tokens=False
        )


@pytest.mark.parametrize(("name", "row"), NAMES, ids=[name for name, _ in NAMES])
def test_every_boundary_of_every_name(name: str, row: PreType, llama_encode: Any, texts: list[str]) -> None:
    """A merge for every pair of neighbouring bytes of the texts: a boundary moved anywhere shows."""
    texts = free_of_differences(row, texts)
    metadata = boundary_metadata(name, texts)
    restored, encode = tokenizer_from_metadata(metadata), llama_encode(metadata)
    for text in texts:
        assert encode(text) == restored.encode(text).ids, text


DIFFERS = {
    "gpt-4o": ["caféÉté", "xe\u0301y"],
    "granite-embed-multi-97m": ["caféÉté"],
    "tekken": ["caféÉté", "xe\u0301y"],
    "deepseek-llm": ["=\u2003\u2028\\"],
    "deepseek-coder": ["=\u2003"],
    "superbpe": ["١٢٣٤٥٦٧"],
}


def test_documented_differences_are_real(llama_encode: Any) -> None:
    """A difference that upstream mends shall leave the table; it shows in some order of the merges."""
    assert {row.names[0] for row in PRE_TYPES if row.differs} == DIFFERS.keys()
    for name, samples in DIFFERS.items():
        for sample in samples:
            tried = (boundary_metadata(name, [sample], seed) for seed in range(8))
            assert any(
                llama_encode(metadata)(sample) != tokenizer_from_metadata(metadata).encode(sample).ids
                for metadata in tried
            ), f"{name}: {sample!r}"


def test_nfc_is_ours_alone(llama_encode: Any) -> None:
    """llama.cpp does not normalize: a decomposed accent is the one documented difference of these rows."""
    metadata = boundary_metadata("qwen2", ["e\u0301 é"])
    restored = tokenizer_from_metadata(metadata)
    assert restored.encode("e\u0301").ids == restored.encode("é").ids == llama_encode(metadata)("é")
    assert llama_encode(metadata)("e\u0301") != restored.encode("e\u0301").ids


def boundary_metadata(name: str, texts: list[str], seed: int = 1) -> dict[str, Any]:
    from tokenizers.pre_tokenizers import ByteLevel

    whole = ByteLevel(add_prefix_space=False, use_regex=False)
    pairs = {pair for text in texts for word, _ in whole.pre_tokenize_str(text) for pair in pairwise(word)}
    merges = sorted(pairs)
    random.Random(seed).shuffle(merges)
    tokens = ["<|endoftext|>", *sorted(BYTE_CHARACTERS), *(a + b for a, b in merges)]
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": name,
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [3] + [1] * (len(tokens) - 1),
        "tokenizer.ggml.merges": [f"{a} {b}" for a, b in merges],
        "tokenizer.ggml.bos_token_id": 0,
        "tokenizer.ggml.eos_token_id": 0,
        "tokenizer.ggml.add_bos_token": False,
    }


@pytest.mark.parametrize(
    ("spelled", "canonical_spelling"),
    [
        (LLAMA3, r.LLAMA3),
        (CL100K, r.LLAMA3),
        (CL100K.replace("{1,3}", ""), r.QWEN2),
        (O200K, r.GPT4O),
        (r.GPT2.removesuffix("|\\s+"), r.GPT2),
        ("[\r\n]", r.NEWLINE),
        (r.DEEPSEEK3.replace("\\r\\n", "\r\n"), r.DEEPSEEK3),
    ],
)
def test_spellings(spelled: str, canonical_spelling: str, texts: list[str]) -> None:
    from tokenizers import Regex
    from tokenizers.pre_tokenizers import Split

    assert r.canonical_regex(spelled) == canonical_spelling
    assert r.canonical_regex(canonical_spelling) == canonical_spelling
    ours, theirs = (Split(Regex(regex), "isolated") for regex in (canonical_spelling, spelled))
    for text in texts:
        assert ours.pre_tokenize_str(text) == theirs.pre_tokenize_str(text)


def test_names_are_distinct() -> None:
    names = [name for name, _ in NAMES]
    assert len(set(names)) == len(names)
