"""SentencePiece's unigram model, as tokenizer.json holds it: llama.cpp's tokenizer model 't5' (XLM-RoBERTa, T5).

A text is normalised by SentencePiece's own table (``precompiled_charsmap``), white space is merged and becomes '▁', and
of all ways to cut the text into tokens the one with the best sum of scores is taken.

llama.cpp's pieces differ from those of `tokenizers` in a few places:

- where tokenizer.json neither splits at white space nor strips the end of a text, a space at the end is a token of its
  own for `tokenizers`; llama.cpp drops it, as SentencePiece does;
- where white space is not merged, a text that begins with a space gets no second one from `tokenizers`, and a line end
  of two characters is one space for its table;
- a ``prepend_scheme`` of "first" adds no space after a special token; llama.cpp adds one after each;
- white space that the table leaves as it is (U+0085) splits words for `tokenizers` only;
- `tokenizers` drops a combining mark after a character that the table replaces (⑨ and U+030B); SentencePiece and
  llama.cpp keep it.

Upstream: ``conversion/bert.py`` (``_xlmroberta_set_vocab``), ``src/llama-vocab.cpp`` (``llm_tokenizer_ugm``);
transformers ``convert_slow_tokenizer.py`` (``SpmConverter``).
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgeq.formats.errors import EdgeqError
from edgeq.formats.gguf.vocab import keys
from edgeq.formats.gguf.vocab.charsmap import charsmap_problem, decoded_charsmap
from edgeq.formats.gguf.vocab.keys import TokenType
from edgeq.formats.gguf.vocab.registry import Kind
from edgeq.formats.gguf.vocab.restored import Restored, template_processing
from edgeq.formats.gguf.vocab.sentencepiece import SPACE
from edgeq.formats.gguf.vocab.source import Source, flatten
from edgeq.formats.gguf.vocab.special import added_by, id_keys, surrounding_ids
from edgeq.formats.gguf.vocab.template import surrounding_tokens
from edgeq.formats.gguf.vocab.tokens import require_distinct, token_list

_UNUSED_SCORE = -10000.0  # as upstream writes it: llama.cpp matches such tokens, too
_MERGES_SPACES = {"Regex": " {2,}"}
_NEXT = "convert it with llama.cpp's own script"


class Unigram(Kind):
    """tokenizer.json's Unigram, and llama.cpp's 't5'."""

    model_type = "Unigram"
    ggml_model = "t5"

    def metadata(self, source: Source, vocab_size: int | None) -> dict[str, Any]:
        """Tokens with scores, special ids, the table that normalises, and what becomes of white space."""
        unknown = _unknown(source)
        steps = _steps(source)
        texts, types = token_list(source, vocab_size)
        types[unknown] = TokenType.UNKNOWN
        require_distinct(source, texts)
        surround = surrounding_tokens(source)
        ids = surrounding_ids(source, texts, surround) | {"unk": unknown}
        scores = _scores(source)
        found = {
            keys.MODEL: self.ggml_model,
            keys.PRE: "default",
            keys.TOKENS: texts,
            keys.SCORES: [scores.get(i, _UNUSED_SCORE) for i in range(len(texts))],
            keys.TOKEN_TYPE: [int(kind) for kind in types],
            **id_keys(ids),
            keys.ADD_BOS: added_by(source, surround, "bos", ids),
            keys.ADD_EOS: added_by(source, surround, "eos", ids),
            **surround.keys,
            keys.ADD_SPACE: steps.prefix,
            keys.REMOVE_SPACES: steps.merges,
        }
        return found | ({keys.CHARSMAP: list(steps.charsmap)} if steps.charsmap else {})

    def tokenizer_json(self, metadata: Mapping[str, Any]) -> dict[str, Any]:
        """llama.cpp's steps, one after the other."""
        restored = Restored(metadata)
        scores = restored.numbers(keys.SCORES)
        normal = [s for s, kind in zip(scores, restored.types, strict=True) if kind == TokenType.NORMAL]
        # The worst score is what an unknown character's is counted from: only that of a token that has one.
        least = min(normal, default=0.0)
        scores = [max(least, one) for one in scores]
        bos = restored.special_text("bos") if metadata.get(keys.ADD_BOS, False) else None
        eos = restored.special_text("eos", 1) if metadata.get(keys.ADD_EOS, True) else None
        # Where white space is merged, llama.cpp begins a text with a space whatever the key says.
        scheme = "always" if metadata.get(keys.REMOVE_SPACES, False) else "never"
        metaspace = {"type": "Metaspace", "replacement": SPACE, "prepend_scheme": scheme, "split": False}
        return {
            "added_tokens": restored.added_tokens(),
            "normalizer": {"type": "Sequence", "normalizers": _normalizers(metadata)},
            "pre_tokenizer": metaspace,
            "post_processor": template_processing(restored, bos, eos),
            "decoder": metaspace,
            "model": {
                "type": "Unigram",
                "unk_id": restored.id_of(restored.special_text("unk", 2)),
                "vocab": [list(pair) for pair in zip(restored.vocabulary(), scores, strict=True)],
                "byte_fallback": False,
            },
        }


@dataclass(frozen=True)
class _Steps:
    """What is done to a text before it is cut."""

    charsmap: bytes  # empty: nothing is replaced
    prefix: bool  # a text begins with a space of its own
    merges: bool  # white space is one space, none at the ends


def _steps(source: Source) -> _Steps:
    """Raises UnsupportedTokenizerError for steps that llama.cpp's unigram has not."""
    charsmap, merges, strips = b"", False, False
    for field, step in flatten(source.section("normalizer"), "normalizer", "normalizers"):
        kind = step.get("type")
        if kind == "Precompiled" and not charsmap and not merges:
            charsmap = decoded_charsmap(source, field, step)
        elif (
            kind == "Replace"
            and step.get("pattern") == _MERGES_SPACES
            and step.get("content") in (" ", SPACE)
        ):
            merges = True
        elif kind == "Strip" and step.get("strip_right", True):
            strips = True
        else:
            raise source.unsupported(f"{field} is {kind!r}", f"llama.cpp's unigram has no such step: {_NEXT}")
    prefix: bool | None = None
    for field, step in flatten(source.section("pre_tokenizer"), "pre_tokenizer", "pretokenizers"):
        kind = step.get("type")
        if kind == "WhitespaceSplit" and prefix is None:
            merges = True
        elif kind == "Metaspace" and step.get("replacement", SPACE) == SPACE and prefix is None:
            prefix = _prepends(step)
            if step.get("split", True):
                _require_whole_words(source)
        else:
            raise source.unsupported(f"{field} is {kind!r}", f"llama.cpp's unigram has no such step: {_NEXT}")
    if prefix is None:
        raise source.unsupported("pre_tokenizer has no 'Metaspace'", f"not SentencePiece's: {_NEXT}")
    if strips and not merges:
        raise source.unsupported(
            "normalizer strips a text whose white space is not merged",
            "llama.cpp's unigram does both or neither",
        )
    if merges and not prefix:
        raise source.unsupported(
            "pre_tokenizer adds no space before a text",
            "llama.cpp's unigram does, where it merges white space",
        )
    return _Steps(charsmap, prefix, merges)


def _prepends(step: Mapping[str, Any]) -> bool:
    scheme = step.get("prepend_scheme")
    return bool(step.get("add_prefix_space", True)) if scheme is None else scheme != "never"


def _require_whole_words(source: Source) -> None:
    """Where words are cut apart first, no token may reach over the start of a word."""
    added = {token["content"] for token in source.added_tokens()}
    across = [token for token in source.vocabulary() if SPACE in token[1:] and token not in added]
    across = [token for token in across if token.strip(SPACE)]  # runs of spaces: there are none after merging
    if across:
        raise source.unsupported(
            f"pre_tokenizer splits words, but {len(across)} tokens have {SPACE!r} inside ({across[0]!r})",
            "llama.cpp would take them across words",
        )


def _unknown(source: Source) -> int:
    model = source.section("model")
    if model.get("byte_fallback"):
        raise source.unsupported("model.byte_fallback is true", f"llama.cpp's unigram has no bytes: {_NEXT}")
    unknown = model.get("unk_id")
    if type(unknown) is not int or not 0 <= unknown < len(source.vocabulary()):
        raise source.broken(f"model.unk_id is {unknown!r}, which is not in the vocabulary")
    return unknown


def _scores(source: Source) -> dict[int, float]:
    """The score of each token of the model, by id."""
    return {i: float(pair[1]) for i, pair in enumerate(source.section("model")["vocab"])}


def _normalizers(metadata: Mapping[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    if metadata.get(keys.CHARSMAP) is not None:
        table = _bytes(metadata[keys.CHARSMAP])
        problem = charsmap_problem(table)
        if problem is not None:
            raise EdgeqError(f"{keys.CHARSMAP} {problem}; convert the model again")
        encoded = base64.b64encode(table).decode()
        found.append({"type": "Precompiled", "precompiled_charsmap": encoded})
    if metadata.get(keys.REMOVE_SPACES, False):
        for pattern, content in (("^ +| +$", ""), (" {2,}", " ")):
            found.append({"type": "Replace", "pattern": {"Regex": pattern}, "content": content})
    elif metadata.get(keys.ADD_SPACE, True):
        found.append({"type": "Prepend", "prepend": " "})
    return found


def _bytes(values: Any) -> bytes:
    """A list of uint8, or of int8 as some converters write it."""
    try:
        return bytes(int(one) & 0xFF for one in values)
    except (TypeError, ValueError):
        raise EdgeqError(f"{keys.CHARSMAP} is not a list of bytes; convert the model again") from None
