"""Makes ``tests/assets/unigram/tokenizer.json``: a small unigram tokenizer, as XLM-RoBERTa's, by SentencePiece itself.

``pip install sentencepiece protobuf`` first; ``python tests/oracle/make_unigram.py``. Its table of replacements is
SentencePiece's own kind, of NFKC for the characters that the tests use, white space and control characters.
"""

from __future__ import annotations

import ast
import base64
import json
import random
import tempfile
import textwrap
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import sentencepiece
from encoder_tokenizers import added, around
from sentencepiece import sentencepiece_model_pb2

FOLDER = Path(__file__).parents[1] / "assets/unigram"
_SIZE = 1200
# What SentencePiece's "nmt" rules leave out, and what they make a space of.
_REMOVED = [*range(1, 9), 0x0B, *range(0x0E, 0x20), 0x7F, 0x8F, 0x9F]
_SPACES = [9, 10, 12, 13, 0x1680, *range(0x200B, 0x2010), 0x2028, 0x2029, 0x2581, 0xFEFF, 0xFFFD]
_BLOCKS = [
    (0xA0, 0x180),
    (0x2000, 0x2070),
    (0x2070, 0x20A0),
    (0x2100, 0x2190),
    (0x2460, 0x2500),
    (0xFF00, 0xFFF0),
]
_TEXT = (
    "naïve café Ünïcode straße — “quotes” ‘it’ … £9 €10", "Привет, мир Ελλάδα",
    "中文字符 日本語 ひらがな カタカナ 한국어 हिन्दी ไทย العربية", "😀 🦙 👨👩👧",
)  # fmt: skip


def _rules() -> Iterator[tuple[str, str]]:
    yield from ((chr(code), "") for code in _REMOVED)
    yield from ((chr(code), " ") for code in _SPACES)
    for first, last in _BLOCKS:
        for code in range(first, last):
            text = chr(code)
            composed = unicodedata.normalize("NFKC", text)
            if code not in _SPACES and composed != text:
                yield text, composed
            decomposed = unicodedata.normalize("NFD", text)
            if len(decomposed) > 1:
                yield decomposed, composed


def _trained(folder: Path) -> Any:
    lines = [
        line
        for module in (ast, json, random, textwrap)
        for line in _source(module).splitlines()
        if line.strip()
    ]
    (folder / "text").write_text("\n".join([*lines, *3 * _TEXT]), encoding="utf-8")
    rows = dict(_rules())
    rules = "\n".join(
        "\t".join(" ".join(f"{ord(c):X}" for c in part) for part in row) for row in rows.items()
    )
    (folder / "rules.tsv").write_text(rules + "\n")
    sentencepiece.SentencePieceTrainer.train(
        input=str(folder / "text"), model_prefix=str(folder / "model"), vocab_size=_SIZE, model_type="unigram",
        character_coverage=1.0, normalization_rule_tsv=str(folder / "rules.tsv"), num_threads=1,
    )  # fmt: skip
    model = sentencepiece_model_pb2.ModelProto()
    model.ParseFromString((folder / "model.model").read_bytes())
    return model


def _source(module: Any) -> str:
    return Path(module.__file__).read_text(encoding="utf-8")


def main() -> None:
    with tempfile.TemporaryDirectory() as temporary:
        model = _trained(Path(temporary))
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    pieces = [(piece.piece, piece.score) for piece in model.pieces if piece.type == 1]
    vocab = [*((token, 0.0) for token in special), *pieces, ("<mask>", 0.0)]
    ids = {token: i for i, (token, _) in enumerate(vocab)}
    space = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}
    table = base64.b64encode(model.normalizer_spec.precompiled_charsmap).decode()
    described = {
        "version": "1.0",
        "added_tokens": added({token: ids[token] for token in (*special, "<mask>")}, ["<mask>"]),
        "normalizer": {"type": "Precompiled", "precompiled_charsmap": table},
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
    FOLDER.mkdir(exist_ok=True)
    named = {
        "bos": "<s>",
        "eos": "</s>",
        "cls": "<s>",
        "sep": "</s>",
        "unk": "<unk>",
        "pad": "<pad>",
        "mask": "<mask>",
    }
    (FOLDER / "tokenizer.json").write_text(json.dumps(described, ensure_ascii=False), encoding="utf-8")
    (FOLDER / "tokenizer_config.json").write_text(json.dumps({f"{k}_token": v for k, v in named.items()}))


if __name__ == "__main__":
    main()
