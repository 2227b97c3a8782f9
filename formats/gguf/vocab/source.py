"""The files of a model directory that describe its tokenizer, read and checked once."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeq.formats.errors import FormatError
from edgeq.formats.gguf.vocab.errors import UnsupportedTokenizerError

_FETCH = "download the model again, tokenizer files included"


@dataclass(frozen=True)
class Source:
    """tokenizer.json and its neighbours; a neighbour that is absent is an empty dict."""

    path: Path
    tokenizer: dict[str, Any]
    tokenizer_config: dict[str, Any]
    special_tokens_map: dict[str, Any]
    generation_config: dict[str, Any]
    config: dict[str, Any]

    def section(self, name: str) -> dict[str, Any]:
        """A top-level object of tokenizer.json; null or absent is an empty dict. Raises FormatError."""
        value = self.tokenizer.get(name) or {}
        if not isinstance(value, dict):
            raise self.broken(f"{name} is not an object")
        return value

    def vocabulary(self) -> dict[str, int]:
        """``model.vocab``, checked: text to id. Raises FormatError."""
        vocab = self.section("model").get("vocab")
        if isinstance(vocab, list) and vocab:
            return self._scored_vocabulary(vocab)
        if not isinstance(vocab, dict) or not vocab:
            raise self.broken("model.vocab is not an object of tokens")
        for token, token_id in vocab.items():
            if type(token_id) is not int or token_id < 0:
                raise self.broken(f"model.vocab[{token!r}] is not an id: {token_id!r}")
        return vocab

    def _scored_vocabulary(self, vocab: list[Any]) -> dict[str, int]:
        """A unigram's list of tokens and scores, each token's place its id."""
        ids: dict[str, int] = {}
        for i, pair in enumerate(vocab):
            if (
                not isinstance(pair, list)
                or len(pair) != 2
                or not isinstance(pair[0], str)
                or not isinstance(pair[1], int | float)
                or not math.isfinite(pair[1])
            ):
                raise self.broken(f"model.vocab[{i}] is not a token and its score: {str(pair)[:60]}")
            if ids.setdefault(pair[0], i) != i:
                raise self.broken(f"model.vocab has {pair[0]!r} at {ids[pair[0]]} and at {i}")
        return ids

    def added_tokens(self) -> list[dict[str, Any]]:
        """``added_tokens``, checked: each has ``id`` and ``content``. Raises FormatError."""
        added = self.tokenizer.get("added_tokens") or []
        if not isinstance(added, list):
            raise self.broken("added_tokens is not a list")
        for i, token in enumerate(added):
            if (
                not isinstance(token, dict)
                or type(token.get("id")) is not int
                or token["id"] < 0
                or not isinstance(token.get("content"), str)
            ):
                raise self.broken(f"added_tokens[{i}] has no id and content")
        return added

    def broken(self, problem: str) -> FormatError:
        """The error for a tokenizer.json that breaks its own format."""
        return FormatError(self.path, problem, _FETCH)

    def unsupported(self, problem: str, remedy: str) -> UnsupportedTokenizerError:
        """The error for a tokenizer that GGUF cannot express."""
        return UnsupportedTokenizerError(self.path, problem, remedy)


def read_source(directory: Path) -> Source:
    """Read a model directory's tokenizer files.

    Raises FormatError where tokenizer.json is missing, or a file is not a JSON object.
    """
    path = directory / "tokenizer.json"
    if not path.is_file():
        raise FormatError(path, "not found", "save the tokenizer in the fast format (tokenizer.json)")
    neighbours = ("tokenizer_config", "special_tokens_map", "generation_config", "config")
    return Source(
        path, read_json_object(path), *(read_json_object(directory / f"{name}.json") for name in neighbours)
    )


def flatten(step: dict[str, Any], field: str, children: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each leaf of nested Sequences with the name of its field, as ``pre_tokenizer.pretokenizers[1]``."""
    if not step:
        return
    if step.get("type") != "Sequence":
        yield field, step
        return
    for i, child in enumerate(step.get(children) or []):
        if isinstance(child, dict):
            yield from flatten(child, f"{field}.{children}[{i}]", children)


def read_json_object(path: Path) -> dict[str, Any]:
    """A JSON object; an absent file is an empty one. Raises FormatError."""
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise FormatError(path, f"not JSON ({error})".replace("\n", " "), _FETCH) from error
    if not isinstance(value, dict):
        raise FormatError(path, "not a JSON object", _FETCH)
    return value
