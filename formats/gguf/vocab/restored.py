"""What every kind reads from GGUF metadata on the way back to tokenizer.json."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from edgeq.formats.errors import EdgeqError
from edgeq.formats.gguf.vocab import keys
from edgeq.formats.gguf.vocab.keys import TokenType


class Restored:
    """The tokens of a file, spelled as tokenizer.json spells them.

    Raises EdgeqError where the list is missing, types do not fit it, or two tokens have one text.
    """

    def __init__(
        self, metadata: Mapping[str, Any], spell: Callable[[str, TokenType], str] | None = None
    ) -> None:
        self._metadata = metadata
        texts = self.strings(keys.TOKENS)
        given = metadata.get(keys.TOKEN_TYPE)
        self.types = _types(given if given is not None else [TokenType.NORMAL] * len(texts), len(texts))
        # llama.cpp names an empty token so that each has a text of its own.
        texts = [text or f"[EMPTY_{i}]" for i, text in enumerate(texts)]
        self.texts = [spell(*pair) for pair in zip(texts, self.types, strict=True)] if spell else texts

        self.separated = bool(metadata.get(keys.ADD_SEP, False))
        count = metadata.get(keys.SEGMENTS, 1)
        self.second_segment = 1 if isinstance(count, int) and count > 1 else 0

    def strings(self, key: str) -> list[str]:
        """A list of strings. Raises EdgeqError where it is absent or something else."""
        value = self._metadata.get(key)
        if value is None or isinstance(value, str) or not all(isinstance(item, str) for item in value):
            raise EdgeqError(f"{key} is not a list of strings; convert the model again")
        return list(value)

    def numbers(self, key: str) -> list[float]:
        """A number for each token. Raises EdgeqError where the list is absent or does not fit."""
        value = self._metadata.get(key)
        if value is None or isinstance(value, str) or len(value) != len(self.texts):
            raise EdgeqError(f"{key} is not a list of {len(self.texts)} numbers; convert the model again")
        return [float(item) for item in value]

    def vocabulary(self) -> dict[str, int]:
        """Text to id. Raises EdgeqError where two tokens have one text."""
        vocab = {text: i for i, text in enumerate(self.texts)}
        if len(vocab) != len(self.texts):
            raise EdgeqError(f"{keys.TOKENS} has the same text twice; convert the model again")
        return vocab

    def special_text(self, role: str, default: int | None = None) -> str:
        """The text of bos, eos …. Raises EdgeqError where the key is absent or outside the vocabulary."""
        key = keys.SPECIAL_ID[role]
        token_id = self._metadata.get(key, default)
        if token_id is None or not 0 <= int(token_id) < len(self.texts):
            raise EdgeqError(
                f"{key} is {token_id}, outside the vocabulary of {len(self.texts)}; convert it again"
            )
        return self.texts[int(token_id)]

    def added_tokens(self) -> list[dict[str, Any]]:
        """The tokens that are found in a text before it is split."""
        flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
        special = (TokenType.CONTROL, TokenType.UNKNOWN)
        return [
            {"id": i, "content": text, "special": kind in special, **flags}
            for i, (text, kind) in enumerate(zip(self.texts, self.types, strict=True))
            if kind in (*special, TokenType.USER_DEFINED)
        ]

    def id_of(self, text: str) -> int:
        """The id of a token that `special_text` gave."""
        return self.texts.index(text)


def template_processing(restored: Restored, before: str | None, after: str | None) -> dict[str, Any] | None:
    """A post-processor that adds a token before and after a text; None where it adds neither.

    An encoder's second text of a pair follows the first one's end (and a separator where the file says so), and is of
    the second segment where there are two.
    """
    if before is None and after is None:
        return None

    def part(text: str | None, segment: int = 0) -> list[dict[str, Any]]:
        return [] if text is None else [{"SpecialToken": {"id": text, "type_id": segment}}]

    def sequence(name: str, segment: int = 0) -> list[dict[str, Any]]:
        return [{"Sequence": {"id": name, "type_id": segment}}, *part(after, segment)]

    second = [*part(before), *sequence("B")]
    if before is not None and after is not None:
        separator = part(after) if restored.separated else []
        second = [*separator, *sequence("B", restored.second_segment)]
    named = {text: restored.id_of(text) for text in (before, after) if text is not None}
    return {
        "type": "TemplateProcessing",
        "single": [*part(before), *sequence("A")],
        "pair": [*part(before), *sequence("A"), *second],
        "special_tokens": {text: {"id": text, "ids": [i], "tokens": [text]} for text, i in named.items()},
    }


def _types(given: Any, n_tokens: int) -> list[TokenType]:
    known = {int(kind): kind for kind in TokenType}
    types = [known.get(int(kind), TokenType.NORMAL) for kind in given]
    if len(types) != n_tokens:
        raise EdgeqError(
            f"{keys.TOKEN_TYPE} has {len(types)} entries for {n_tokens} tokens; convert it again"
        )
    return types
