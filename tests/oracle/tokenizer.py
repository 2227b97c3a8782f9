"""A byte-level tokenizer of a few hundred tokens, in tokenizer.json's form."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from edgeq.formats.gguf.vocab.bpe import BYTE_CHARACTERS

END = "<|endoftext|>"
_FREQUENT = "etaoinshr"


def byte_level(size: int) -> dict[str, Any]:
    """``END``, the 256 bytes, and pairs of frequent letters up to ``size`` tokens."""
    pairs = [(a, b) for a in _FREQUENT for b in _FREQUENT][: size - 257]
    vocabulary = [END, *sorted(BYTE_CHARACTERS), *(a + b for a, b in pairs)]
    return {
        "version": "1.0",
        "added_tokens": [
            {"id": 0, "content": END, "special": True, "single_word": False, "lstrip": False, "rstrip": False,
             "normalized": False}
        ],
        "normalizer": None,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
        "model": {
            "type": "BPE",
            "vocab": {token: i for i, token in enumerate(vocabulary)},
            "merges": [list(pair) for pair in pairs],
        },
    }  # fmt: skip


def write(folder: Path, size: int) -> None:
    """tokenizer.json and tokenizer_config.json."""
    (folder / "tokenizer.json").write_text(json.dumps(byte_level(size)))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": END, "bos_token": END}))
