"""Which ids are begin, end, padding …, gathered from the files that may say so.

tokenizer_config.json goes before special_tokens_map.json, and both (they name the token) before
config.json and generation_config.json (they name the id). Upstream: ``gguf/vocab.py`` (``SpecialVocab``).
"""

from __future__ import annotations

from typing import Any

from edgeq.formats.gguf.vocab.keys import SPECIAL_ID
from edgeq.formats.gguf.vocab.source import Source
from edgeq.formats.gguf.vocab.template import Surround

# Some configurations name padding and such that their vocabulary never had; that is no error.
_VITAL = ("bos", "eos")
NAMES = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")
# What llama.cpp itself takes for end of turn and end of message, by text (llama_vocab::impl::load).
_END_OF_TURN = frozenset(
    {"<|eot_id|>", "<|im_end|>", "<|end|>", "<end_of_turn>", "<EOT>", "_<EOT>", "[EOT]", "<end_of_utterance>"}
)
_END_OF_MESSAGE = frozenset({"<|eom_id|>"})


def special_ids(source: Source, tokens: list[str]) -> dict[str, int]:
    """Ids by role (bos, eos, eot, eom, unk, sep, pad, cls, mask); a role nobody fills is absent.

    Further ends of generation (a list of eos ids) become eot and eom by their text; one with another text
    takes what is left of the two. Raises FormatError for a bos or eos outside the vocabulary.
    """
    by_text = {token: i for i, token in enumerate(tokens)}
    ids: dict[str, int] = {}
    for name in NAMES:
        named = _named_token(source, by_text, name)
        listed = _listed_ids(source, name, len(tokens))
        if named is not None:
            ids[name] = named
        elif listed:
            ids[name] = listed[0]
    others = [i for i in _listed_ids(source, "eos", len(tokens)) if i != ids.get("eos")]
    return ids | _further_ends(others, tokens)


def id_keys(ids: dict[str, int]) -> dict[str, int]:
    """The metadata of these roles; cls has no key of its own."""
    return {SPECIAL_ID[name]: ids[name] for name in SPECIAL_ID if name in ids}


def surrounding_ids(source: Source, tokens: list[str], surround: Surround) -> dict[str, int]:
    """Special ids, where what the post-processor adds is what bos and eos mean to llama.cpp."""
    ids = special_ids(source, tokens)
    for role, text in (("bos", surround.before), ("eos", surround.after)):
        if text is None:
            continue
        if text not in tokens:
            raise source.broken(f"post_processor adds {text!r}, which is not in the vocabulary")
        added = tokens.index(text)
        if role == "eos" and ids.get("eos", added) != added:
            ids.setdefault("eot", ids["eos"])  # still an end of generation
        ids[role] = added
    ids = _with_encoder_roles(ids)
    if "eos" not in ids:
        # Without the key llama.cpp takes token 11 for both, and generation would stop there.
        raise source.unsupported("no eos token is named", "set eos_token in tokenizer_config.json")
    if surround.separated:
        ids.setdefault("sep", ids["eos"])
    return {"bos": ids["eos"]} | ids


def _with_encoder_roles(ids: dict[str, int]) -> dict[str, int]:
    """cls and sep are the bos and eos of an encoder that names no others."""
    stand_ins = {"bos": "cls", "eos": "sep"}
    return {role: ids[other] for role, other in stand_ins.items() if other in ids} | ids


def added_by(source: Source, surround: Surround, role: str, ids: dict[str, int]) -> bool:
    """Whether llama.cpp shall add bos or eos; tokenizer_config.json counts where no post-processor speaks."""
    if surround.decided:
        return (surround.before if role == "bos" else surround.after) is not None
    return role in ids and source.tokenizer_config.get(f"add_{role}_token") is True


def _named_token(source: Source, by_text: dict[str, int], name: str) -> int | None:
    for settings in (source.tokenizer_config, source.special_tokens_map):
        entry: Any = settings.get(f"{name}_token")
        text = entry.get("content") if isinstance(entry, dict) else entry
        if not isinstance(text, str):
            continue
        if text in by_text:
            return by_text[text]
        if name in _VITAL:
            raise source.broken(f"{name}_token {text!r} of tokenizer_config.json is not in the vocabulary")
    return None


def _listed_ids(source: Source, name: str, n_tokens: int) -> list[int]:
    """Ids of a role in config.json and generation_config.json, each once, in order."""
    found: list[int] = []
    text_config = source.config.get("text_config")
    for settings in (source.config, text_config, source.generation_config):
        value = settings.get(f"{name}_token_id") if isinstance(settings, dict) else None
        for token_id in value if isinstance(value, list) else [value]:
            if type(token_id) is not int or token_id < 0 or token_id in found:
                continue  # null and -1 mean none
            if token_id >= n_tokens and name not in _VITAL:
                continue
            if token_id >= n_tokens:
                raise source.broken(f"{name}_token_id {token_id} is outside the vocabulary of {n_tokens}")
            found.append(token_id)
    return found


def _further_ends(others: list[int], tokens: list[str]) -> dict[str, int]:
    ends: dict[str, int] = {}
    for name, texts in (("eot", _END_OF_TURN), ("eom", _END_OF_MESSAGE)):
        for token_id in others:
            if tokens[token_id] in texts:
                ends.setdefault(name, token_id)
    rest = [i for i in others if tokens[i] not in _END_OF_TURN | _END_OF_MESSAGE]
    free = [name for name in ("eot", "eom") if name not in ends]
    return ends | dict(zip(free, rest, strict=False))
