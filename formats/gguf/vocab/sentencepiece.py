"""SentencePiece's BPE, as tokenizer.json holds it (BPE with byte_fallback): llama.cpp's tokenizer model 'llama'.

A space is '▁'; a character that is no token becomes its bytes, ``<0x00>`` to ``<0xFF>``. tokenizer.json merges by a
list of pairs, SentencePiece and llama.cpp merge whatever two neighbours make a token, best score first. The two are
one where the list has every pair of tokens that makes a token, and all pairs of one result stand together: then the
place of the result in the list is its score. Where one character is repeated ('aaa' from 'a' + 'aa' or 'aa' + 'a')
llama.cpp takes the left pair, as SentencePiece does, and `tokenizers` the one that is listed first. Metaspace adds no
space to a text that begins with one, llama.cpp does, and it adds one after each special token too.

Upstream: ``conversion/base.py`` (``_set_vocab_llama_hf``), ``src/llama-vocab.cpp`` (``llm_tokenizer_spm_session``);
transformers ``convert_slow_tokenizer.py`` (``generate_merges``), which made such lists.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from edgeq.formats.gguf.vocab import keys
from edgeq.formats.gguf.vocab.keys import TokenType
from edgeq.formats.gguf.vocab.registry import Kind
from edgeq.formats.gguf.vocab.restored import Restored, template_processing
from edgeq.formats.gguf.vocab.source import Source, flatten
from edgeq.formats.gguf.vocab.special import added_by, id_keys, surrounding_ids
from edgeq.formats.gguf.vocab.template import surrounding_tokens
from edgeq.formats.gguf.vocab.tokens import require_distinct, token_list

SPACE = "▁"
BYTES = tuple(f"<0x{byte:02X}>" for byte in range(256))
_SHOWN = 3
_NEXT = "convert it with llama.cpp's own script"


class SentencePieceBPE(Kind):
    """tokenizer.json's BPE with byte_fallback, and llama.cpp's 'llama'."""

    model_type = "BPE"
    ggml_model = "llama"

    def matches(self, source: Source) -> bool:
        return super().matches(source) and bool(source.section("model").get("byte_fallback"))

    def metadata(self, source: Source, vocab_size: int | None) -> dict[str, Any]:
        """Tokens with scores, special ids, and whether a text begins with a space."""
        _require_expressible(source)
        prefix = _adds_space(source)
        texts, types = token_list(source, vocab_size)
        unknown = source.section("model").get("unk_token")
        types = [_type(text, kind, unknown) for text, kind in zip(texts, types, strict=True)]
        scores = _scores(source, texts, types)
        # What is matched in the raw text is written as it stands there.
        tokens = [
            text.replace(SPACE, " ") if kind == TokenType.USER_DEFINED else text
            for text, kind in zip(texts, types, strict=True)
        ]
        require_distinct(source, tokens)
        surround = surrounding_tokens(source)
        ids = surrounding_ids(source, texts, surround)
        if unknown in texts:
            ids["unk"] = texts.index(unknown)
        return {
            keys.MODEL: self.ggml_model,
            keys.PRE: "default",
            keys.TOKENS: tokens,
            keys.SCORES: scores,
            keys.TOKEN_TYPE: [int(kind) for kind in types],
            **id_keys(ids),
            keys.ADD_BOS: added_by(source, surround, "bos", ids),
            keys.ADD_EOS: added_by(source, surround, "eos", ids),
            keys.ADD_SPACE: prefix,
        }

    def tokenizer_json(self, metadata: Mapping[str, Any]) -> dict[str, Any]:
        """The pairs that the scores stand for, best first."""
        restored = Restored(metadata)
        scores = restored.numbers(keys.SCORES)
        normal = {
            text: score
            for text, score, kind in zip(restored.texts, scores, restored.types, strict=True)
            if kind == TokenType.NORMAL
        }
        merges = sorted(_pairs(normal), key=lambda pair: -normal[pair[0] + pair[1]])
        prepend = [{"type": "Prepend", "prepend": SPACE}] if metadata.get(keys.ADD_SPACE, True) else []
        replace = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
        bos = restored.special_text("bos", 1) if metadata.get(keys.ADD_BOS, True) else None
        eos = restored.special_text("eos", 2) if metadata.get(keys.ADD_EOS, False) else None
        back = [
            {"type": "Replace", "pattern": {"String": SPACE}, "content": " "},
            {"type": "ByteFallback"},
            {"type": "Fuse"},
        ]
        strip = [{"type": "Strip", "content": " ", "start": 1, "stop": 0}] if prepend else []
        return {
            "added_tokens": restored.added_tokens(),
            "normalizer": {"type": "Sequence", "normalizers": [*prepend, replace]},
            "pre_tokenizer": None,
            "post_processor": template_processing(restored, bos, eos),
            "decoder": {"type": "Sequence", "decoders": [*back, *strip]},
            "model": {
                "type": "BPE",
                "vocab": restored.vocabulary(),
                "merges": [list(pair) for pair in merges],
                "byte_fallback": True,
                "fuse_unk": True,
                "unk_token": restored.special_text("unk", 0),
            },
        }


def _type(text: str, kind: TokenType, unknown: object) -> TokenType:
    if text == unknown:
        return TokenType.UNKNOWN
    return TokenType.BYTE if text in BYTES and kind == TokenType.NORMAL else kind


def _require_expressible(source: Source) -> None:
    model = source.section("model")
    for field in ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "ignore_merges"):
        if model.get(field):
            raise source.unsupported(
                f"model.{field} is {model[field]!r}", "llama.cpp's SentencePiece has no such thing"
            )
    missing = set(BYTES) - source.vocabulary().keys()
    if missing:
        raise source.unsupported(
            f"model.vocab lacks {len(missing)} of the 256 byte tokens", "byte_fallback needs them all"
        )


def _adds_space(source: Source) -> bool:
    """Whether a text begins with a space of its own; raises UnsupportedTokenizerError for other steps."""
    prefix = replaced = False
    for field, step in flatten(source.section("normalizer"), "normalizer", "normalizers"):
        if step.get("type") == "Prepend" and step.get("prepend") == SPACE:
            prefix = True
        elif step.get("type") == "Replace" and step.get("pattern") == {"String": " "}:
            replaced = step.get("content") == SPACE
        else:
            raise source.unsupported(f"{field} is {step.get('type')!r}", f"not SentencePiece's: {_NEXT}")
    for field, step in flatten(source.section("pre_tokenizer"), "pre_tokenizer", "pretokenizers"):
        if step.get("type") == "Metaspace" and step.get("replacement", SPACE) == SPACE:
            prefix = prefix or step.get("prepend_scheme", "always") != "never"
            replaced = True
            if step.get("split", True):
                _require_whole_words(source)
        elif step.get("type") != "Split" or step.get("pattern") != {"String": " "} or not replaced:
            # Gemma's Split at spaces finds none: they are replaced by then.
            raise source.unsupported(f"{field} is {step.get('type')!r}", f"not SentencePiece's: {_NEXT}")
    if not replaced:
        raise source.unsupported(f"no step makes {SPACE!r} of a space", f"not SentencePiece's: {_NEXT}")
    return prefix


def _require_whole_words(source: Source) -> None:
    """Where words are cut apart first, no token may reach over the start of a word."""
    added = {token["content"] for token in source.added_tokens()}
    across = [token for token in source.vocabulary() if SPACE in token[1:] and token not in added]
    if across:
        raise source.unsupported(
            f"pre_tokenizer.split is true, but {len(across)} tokens have {SPACE!r} inside ({across[0]!r})",
            "llama.cpp would merge across words",
        )


def _scores(source: Source, texts: list[str], types: list[TokenType]) -> list[float]:
    """Minus the place of each token among the results of the merges, in their order; after them, the others."""
    normal = {text for text, kind in zip(texts, types, strict=True) if kind == TokenType.NORMAL}
    listed = [pair for pair in _merges(source) if pair[0] + pair[1] in normal]
    places: dict[str, int] = {}
    last = ""
    for left, right in listed:
        result = left + right
        if result != last and result in places:
            raise source.unsupported(
                f"model.merges makes {result!r} at two places with others between",
                "llama.cpp merges by score",
            )
        places.setdefault(result, len(places))
        last = result
    missing = sorted(set(_pairs(normal)) - set(listed))
    if missing:
        shown = ", ".join(f"{left} {right}" for left, right in missing[:_SHOWN])
        raise source.unsupported(
            f"model.merges lacks {len(missing)} pairs that make a token ({shown})",
            "llama.cpp merges them all: take a tokenizer that was made from a SentencePiece model",
        )
    return [
        -float(places.get(text, len(places) + i)) if kind == TokenType.NORMAL else 0.0
        for i, (text, kind) in enumerate(zip(texts, types, strict=True))
    ]


def _merges(source: Source) -> Iterator[tuple[str, str]]:
    merges = source.section("model").get("merges")
    if not isinstance(merges, list):
        raise source.broken("model.merges is not a list")
    for i, merge in enumerate(merges):
        pair = merge.split(" ") if isinstance(merge, str) else merge
        if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(p, str) and p for p in pair):
            raise source.broken(f"model.merges[{i}] is not a pair of tokens")
        yield pair[0], pair[1]


def _pairs(tokens: Collection[str]) -> Iterator[tuple[str, str]]:
    """Every two tokens that together are a token."""
    for token in tokens:
        for cut in range(1, len(token)):
            if token[:cut] in tokens and token[cut:] in tokens:
                yield token[:cut], token[cut:]
