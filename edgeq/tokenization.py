"""The tokenizer of a model: a directory's tokenizer.json, or what a GGUF file carries."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeq.errors import EdgeqError, FormatError
from edgeq.formats.gguf.vocab import tokenizer_from_metadata
from edgeq.formats.gguf.vocab.charsmap import require_sound_charsmaps
from edgeq.formats.gguf.vocab.source import read_source
from edgeq.json_files import read_json

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Tokenizer


def from_directory(path: Path) -> Tokenizer:
    """The tokenizer.json of a directory, without truncation and padding; raises FormatError."""
    from tokenizers import Tokenizer

    file = path / "tokenizer.json"
    if not file.is_file():
        raise FormatError(file, "is missing", "save the model with its fast tokenizer")
    if b'"Precompiled"' in file.read_bytes():  # tokenizers aborts on a damaged table
        require_sound_charsmaps(read_source(path))
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:  # tokenizers raises plain Exception
        raise FormatError(file, f"cannot be read as a tokenizer ({str(error).splitlines()[0]})") from None
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def from_gguf(path: Path, metadata: Mapping[str, Any]) -> Tokenizer:
    """The tokenizer that a GGUF file's metadata describes; raises FormatError naming the file."""
    try:
        return tokenizer_from_metadata(metadata)
    except EdgeqError as error:
        raise FormatError(path, str(error)) from None


def end_tokens(path: Path, metadata: Mapping[str, Any] | None = None) -> frozenset[int]:
    """The tokens that end a text, from GGUF metadata or from a directory's generation_config.json or config.json.

    Raises FormatError for a value that is no token.
    """
    if metadata is not None:
        keys = [f"tokenizer.ggml.{kind}_token_id" for kind in ("eos", "eot", "eom")]
        return frozenset(_token(path, key, metadata[key]) for key in keys if key in metadata)
    for name in ("generation_config.json", "config.json"):
        if (path / name).is_file():
            value = read_json(path / name, dict).get("eos_token_id")
            if value is not None:
                values = value if isinstance(value, list) else [value]
                return frozenset(_token(path / name, "eos_token_id", one) for one in values)
    return frozenset()


def _token(path: Path, key: str, value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise FormatError(path, f"{key} must be a token's number, not {value!r}")
    return value
