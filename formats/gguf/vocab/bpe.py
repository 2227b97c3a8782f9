"""Byte-level BPE: llama.cpp's tokenizer model 'gpt2'.

Upstream: ``src/llama-vocab.cpp`` (``llm_tokenizer_bpe``), ``conversion/base.py`` (``_set_vocab_gpt2``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgeq.formats.errors import EdgeqError
from edgeq.formats.gguf.vocab import keys
from edgeq.formats.gguf.vocab.pre_types import PreType, pre_type_named, pre_types_splitting
from edgeq.formats.gguf.vocab.registry import Kind
from edgeq.formats.gguf.vocab.restored import Restored, template_processing
from edgeq.formats.gguf.vocab.source import Source
from edgeq.formats.gguf.vocab.special import added_by, id_keys, surrounding_ids
from edgeq.formats.gguf.vocab.structure import byte_level_structure
from edgeq.formats.gguf.vocab.template import surrounding_tokens
from edgeq.formats.gguf.vocab.tokens import require_distinct, token_list

# The 256 characters that stand for bytes: the printable ones for themselves, the others from 256 on
# (GPT-2's bytes_to_unicode; unicode_byte_to_utf8_map in src/unicode.cpp).
_PRINTABLE = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
BYTE_CHARACTERS = frozenset(map(chr, _PRINTABLE)) | {chr(256 + n) for n in range(256 - len(_PRINTABLE))}

_INEXPRESSIBLE = {
    "dropout": "set it to null: dropout is for training",
    "continuing_subword_prefix": "llama.cpp's BPE has no such mark: use a byte-level tokenizer",
    "end_of_word_suffix": "llama.cpp's BPE has no such mark: use a byte-level tokenizer",
}


class ByteLevelBPE(Kind):
    """tokenizer.json's BPE over bytes, and llama.cpp's 'gpt2'."""

    model_type = "BPE"
    ggml_model = "gpt2"

    def matches(self, source: Source) -> bool:
        return super().matches(source) and not source.section("model").get("byte_fallback")

    def metadata(self, source: Source, vocab_size: int | None) -> dict[str, Any]:
        """Tokens, merges, the pre-tokenizer's name and special ids."""
        _require_expressible(source)
        pre = _pre_type(source)
        tokens, types = token_list(source, vocab_size)
        require_distinct(source, tokens)
        surround = surrounding_tokens(source)
        ids = surrounding_ids(source, tokens, surround)
        return {
            keys.MODEL: self.ggml_model,
            keys.PRE: pre.names[0],
            keys.TOKENS: tokens,
            keys.TOKEN_TYPE: [int(kind) for kind in types],
            keys.MERGES: _merges(source),
            **id_keys(ids),
            keys.ADD_BOS: added_by(source, surround, "bos", ids),
            keys.ADD_EOS: added_by(source, surround, "eos", ids),
            **surround.keys,
        }

    def tokenizer_json(self, metadata: Mapping[str, Any]) -> dict[str, Any]:
        """The same table read backwards."""
        restored = Restored(metadata)
        name = metadata.get(keys.PRE, "default")
        pre = pre_type_named(name)
        if pre is None:
            raise EdgeqError(
                f"{keys.PRE} is {name!r}: edgeq does not know its splits; run the file in llama.cpp"
            )
        bos = restored.special_text("bos") if metadata.get(keys.ADD_BOS, pre.add_bos) else None
        eos = restored.special_text("eos") if metadata.get(keys.ADD_EOS, False) else None
        return {
            "added_tokens": restored.added_tokens(),
            "normalizer": {"type": "NFC"} if pre.nfc else None,
            "pre_tokenizer": _pre_tokenizer(pre),
            "post_processor": template_processing(restored, bos, eos),
            "decoder": {
                "type": "ByteLevel",
                "add_prefix_space": False,
                "trim_offsets": True,
                "use_regex": True,
            },
            "model": {
                "type": "BPE",
                "vocab": restored.vocabulary(),
                "merges": restored.strings(keys.MERGES),
                "ignore_merges": pre.ignore_merges,
            },
        }


def _require_expressible(source: Source) -> None:
    model = source.section("model")
    for field, remedy in _INEXPRESSIBLE.items():
        if model.get(field):
            raise source.unsupported(f"model.{field} is {model[field]!r}", remedy)
    missing = BYTE_CHARACTERS - source.vocabulary().keys()
    if missing and model.get("unk_token"):
        raise source.unsupported(
            f"model.vocab lacks {len(missing)} of the 256 byte tokens, and model.unk_token is set",
            "llama.cpp drops such bytes: train with the whole byte alphabet",
        )


def _pre_type(source: Source) -> PreType:
    structure = byte_level_structure(source)
    rows = pre_types_splitting(structure.splits, nfc=structure.nfc)
    if not rows:
        splits = list(structure.splits)
        raise source.unsupported(
            f"pre_tokenizer is no split that llama.cpp has a name for: {splits}",
            "train with a known pre-tokenizer, such as GPT-2's or Llama 3's",
        )
    ignore_merges = bool(source.section("model").get("ignore_merges"))
    agreeing = [row for row in rows if row.ignore_merges == ignore_merges]
    if not agreeing:
        raise source.unsupported(
            f"model.ignore_merges is {ignore_merges}, but llama.cpp's {rows[0].names[0]!r} (these splits) "
            f"has {rows[0].ignore_merges}",
            "change model.ignore_merges if the vocabulary allows it",
        )
    return agreeing[0]


def _merges(source: Source) -> list[str]:
    merges = source.section("model").get("merges")
    if not isinstance(merges, list):
        raise source.broken("model.merges is not a list")
    lines = []
    for i, merge in enumerate(merges):
        pair = merge.split(" ") if isinstance(merge, str) else merge
        if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(p, str) and p for p in pair):
            raise source.broken(f"model.merges[{i}] is not a pair of tokens")
        if " " in pair[0] or " " in pair[1]:
            raise source.unsupported(
                f"model.merges[{i}] contains a space", "only byte-level BPE can be written"
            )
        lines.append(f"{pair[0]} {pair[1]}")
    return lines


def _pre_tokenizer(pre: PreType) -> dict[str, Any]:
    splits = [
        {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": False}
        for regex in pre.splits
    ]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    return {"type": "Sequence", "pretokenizers": [*splits, byte_level]}
