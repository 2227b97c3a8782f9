"""WordPiece: llama.cpp's tokenizer model 'bert'.

A token that starts a word is written with a leading '▁', one that continues it without its '##'.
Upstream: ``conversion/bert.py`` (``BertModel.set_vocab``), ``src/llama-vocab.cpp``
(``llm_tokenizer_wpm_session``).

llama.cpp's pieces differ from those of `tokenizers` in a few places: words of more than 100 characters,
which `tokenizers` calls unknown; Hangul, and spacing or enclosing marks (Mc, Me), which its
``strip_accents`` cuts down too far; U+000B, U+000C and U+0085, which it takes for white space;
punctuation that is newer than its Unicode tables.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgeq.formats.gguf.vocab import keys
from edgeq.formats.gguf.vocab.keys import TokenType
from edgeq.formats.gguf.vocab.registry import Kind
from edgeq.formats.gguf.vocab.restored import Restored, template_processing
from edgeq.formats.gguf.vocab.source import Source
from edgeq.formats.gguf.vocab.special import id_keys, special_ids
from edgeq.formats.gguf.vocab.template import Surround, surrounding_tokens
from edgeq.formats.gguf.vocab.tokens import require_distinct, token_list

_WORD = "▁"
_CONTINUES = "##"


class WordPiece(Kind):
    """tokenizer.json's WordPiece with BERT's normalizer, and llama.cpp's 'bert'."""

    model_type = "WordPiece"
    ggml_model = "bert"

    def metadata(self, source: Source, vocab_size: int | None) -> dict[str, Any]:
        """Tokens with '▁' at the start of a word, special ids and the normalizer's switches."""
        normalizer = _normalizer(source)
        _require_bert(source)
        texts, types = token_list(source, vocab_size)
        surround = surrounding_tokens(source)
        ids = _ids(source, surround, texts)
        tokens = [_phantom(text, kind) for text, kind in zip(texts, types, strict=True)]
        require_distinct(source, tokens)
        return {
            keys.MODEL: self.ggml_model,
            keys.PRE: "default",  # not read for this model
            keys.TOKENS: tokens,
            keys.TOKEN_TYPE: [int(kind) for kind in types],
            **id_keys(ids),
            keys.ADD_BOS: True,
            keys.ADD_EOS: True,
            **surround.keys,
            **normalizer,
        }

    def tokenizer_json(self, metadata: Mapping[str, Any]) -> dict[str, Any]:
        """'▁' and '##' exchanged again."""
        restored = Restored(metadata, spell=_unphantom)
        lowercase = bool(metadata.get(keys.LOWERCASE, True))
        return {
            "added_tokens": restored.added_tokens(),
            "normalizer": {
                "type": "BertNormalizer",
                "clean_text": True,
                "handle_chinese_chars": True,
                "strip_accents": bool(metadata.get(keys.STRIP_ACCENTS, lowercase)),
                "lowercase": lowercase,
            },
            "pre_tokenizer": {"type": "BertPreTokenizer"},
            "post_processor": template_processing(
                restored, restored.special_text("bos", 101), restored.special_text("sep", 102)
            ),
            "decoder": {"type": "WordPiece", "prefix": _CONTINUES, "cleanup": True},
            "model": {
                "type": "WordPiece",
                "vocab": restored.vocabulary(),
                "unk_token": restored.special_text("unk", 100),
                "continuing_subword_prefix": _CONTINUES,
                "max_input_chars_per_word": 100,
            },
        }


def _phantom(text: str, kind: TokenType) -> str:
    if kind in (TokenType.CONTROL, TokenType.USER_DEFINED):
        return text  # matched in the raw text, before words are cut
    return text.removeprefix(_CONTINUES) if text.startswith(_CONTINUES) else _WORD + text


def _unphantom(text: str, kind: TokenType) -> str:
    if kind in (TokenType.CONTROL, TokenType.UNKNOWN):
        return text
    if text.startswith(_WORD):
        return text.removeprefix(_WORD)
    return text if kind == TokenType.USER_DEFINED else _CONTINUES + text


def _normalizer(source: Source) -> dict[str, Any]:
    normalizer = source.section("normalizer")
    if normalizer.get("type") != "BertNormalizer":
        raise source.unsupported(
            f"normalizer is {normalizer.get('type')!r}, not 'BertNormalizer'",
            "llama.cpp has no other for WordPiece",
        )
    for field in ("clean_text", "handle_chinese_chars"):
        if not normalizer.get(field, True):
            raise source.unsupported(
                f"normalizer.{field} is false", "llama.cpp always does it: set it to true"
            )
    lowercase = bool(normalizer.get("lowercase", True))
    strip = normalizer.get("strip_accents")
    return {keys.LOWERCASE: lowercase, keys.STRIP_ACCENTS: lowercase if strip is None else bool(strip)}


def _require_bert(source: Source) -> None:
    pre_tokenizer = source.section("pre_tokenizer").get("type")
    if pre_tokenizer != "BertPreTokenizer":
        raise source.unsupported(
            f"pre_tokenizer is {pre_tokenizer!r}, not 'BertPreTokenizer'",
            "llama.cpp has no other for WordPiece",
        )
    prefix = source.section("model").get("continuing_subword_prefix", _CONTINUES)
    if prefix != _CONTINUES:
        raise source.unsupported(
            f"model.continuing_subword_prefix is {prefix!r}", f"llama.cpp knows {_CONTINUES!r}"
        )


def _ids(source: Source, surround: Surround, texts: list[str]) -> dict[str, int]:
    """Special ids; bos is what stands before a text (cls), sep what stands after it.

    There is no eos: llama.cpp reads none for WordPiece, and warns of one that it does not know by its text.
    """
    if surround.before is None or surround.after is None:
        raise source.unsupported(
            "post_processor does not add a token before and after",
            "llama.cpp always adds cls and sep to WordPiece",
        )
    ids = special_ids(source, texts)
    roles = {
        "bos": surround.before,
        "sep": surround.after,
        "unk": source.section("model").get("unk_token", "[UNK]"),
    }
    for role, text in roles.items():
        if text not in texts:
            raise source.broken(f"the {role} token {text!r} is not in the vocabulary")
        ids[role] = texts.index(text)
    return {role: i for role, i in ids.items() if role != "eos"}
