"""Text and JSON lines, through the tokenizer beside the graph."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeq.calibration.inputs import Arrays, Input, checked
from edgeq.calibration.sources import Samples, Want, source
from edgeq.calibration.text import stream_text
from edgeq.errors import InputError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_CONTEXT = 512  # tokens of a line at most, where the graph does not say
_CHARACTERS = 1 << 18  # of a line, which are more than its tokens need
_OTHER_KINDS = (".jsonl", ".ndjson", ".npz", ".npy")


@source
def text(path: Path, want: Want) -> Samples | None:
    """A UTF-8 text, one sample a line that is not empty."""
    if not path.is_file() or path.suffix.lower() in _OTHER_KINDS:
        return None
    tokenizer = _tokenizer(want)

    def iterate() -> Iterator[Arrays]:
        for piece in stream_text(path):
            for line in piece.content.splitlines():
                if feeds := _text_feeds(line, tokenizer, want.inputs):
                    yield checked(feeds, want.inputs, str(path))

    return Samples(str(path), _lines(path), iterate)


@source
def json_lines(path: Path, want: Want) -> Samples | None:
    """JSON lines: each an object of arrays named as the inputs, or one with a ``text``."""
    if not path.is_file() or path.suffix.lower() not in (".jsonl", ".ndjson"):
        return None

    def iterate() -> Iterator[Arrays]:
        tokenizer: Tokenizer | None = None
        names = {wanted.name for wanted in want.inputs}
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if not line.strip():
                    continue
                where = f"{path}, line {number}"
                entry = _object(line, where)
                if isinstance(entry.get("text"), str) and "text" not in names:
                    tokenizer = tokenizer or _tokenizer(want)
                    feeds = _text_feeds(_well_formed(entry["text"], where), tokenizer, want.inputs)
                else:
                    feeds = _arrays(entry, where)
                if feeds:
                    yield checked(feeds, want.inputs, where)

    return Samples(str(path), _lines(path), iterate)


def _text_feeds(text: str, tokenizer: Tokenizer, inputs: Sequence[Input]) -> Arrays:
    """``token_feeds`` of a text; nothing of one without tokens."""
    ids = tokenizer.encode(text.strip()[:_CHARACTERS]).ids
    return token_feeds(ids, inputs) if ids else {}


def token_feeds(ids: Sequence[int], inputs: Sequence[Input]) -> Arrays:
    """What a graph over tokens wants for one sequence, by the inputs' usual names. Raises InputError."""
    names = {entry.name: entry for entry in inputs}
    if "input_ids" not in names:
        raise InputError(
            f"the model has no input_ids but {', '.join(map(str, inputs))}; give a folder of .npz files"
        )
    shape = names["input_ids"].shape
    width = shape[1] if shape is not None and len(shape) == 2 and isinstance(shape[1], int) else None
    kept = list(ids[: width or _CONTEXT])
    padded = width or len(kept)
    tokens = np.zeros((1, padded), np.int64)
    tokens[0, : len(kept)] = kept
    mask = (np.arange(padded) < len(kept)).astype(np.int64)[None]
    feeds: dict[str, Any] = {
        "input_ids": tokens,
        "attention_mask": mask,
        "token_type_ids": np.zeros_like(tokens),
        "position_ids": np.arange(padded, dtype=np.int64)[None],
        "use_cache_branch": np.zeros(1, bool),
    }
    found = {name: feeds[name].astype(entry.dtype) for name, entry in names.items() if name in feeds}
    for name, entry in names.items():
        if name.startswith("past_key_values.") and entry.shape is not None and len(entry.shape) == 4:
            heads, width_ = entry.shape[1], entry.shape[3]
            if isinstance(heads, int) and isinstance(width_, int):
                found[name] = np.zeros((1, heads, 0, width_), entry.dtype)
    return found


def _tokenizer(want: Want) -> Tokenizer:
    from edgeq import tokenization

    for folder in (want.model.parent, want.model.parent.parent):
        if (folder / "tokenizer.json").is_file() or (folder / "vocab.txt").is_file():
            return tokenization.from_directory(folder)
    raise InputError(
        f"{want.model.parent}: has no tokenizer.json, which a text needs; put it beside the model, or give .npz files"
    )


def _lines(path: Path) -> int:
    with path.open("rb") as file:
        return sum(bool(line.strip()) for line in file)


def _object(line: bytes, where: str) -> dict[str, Any]:
    try:
        entry = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise InputError(f"{where}: is not UTF-8; save it as UTF-8 text") from None
    except (ValueError, RecursionError):
        entry = None
    if not isinstance(entry, dict):
        raise InputError(f"{where}: is no JSON object; write one object a line")
    return entry


def _well_formed(text: str, where: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InputError(f"{where}: text has half a surrogate pair; write whole characters") from None
    return text


def _arrays(entry: dict[str, Any], where: str) -> Arrays:
    if not entry:
        raise InputError(f"{where}: holds nothing; write an array for each input, or a text")
    found = {}
    for name, value in entry.items():
        try:
            array = np.asarray(value)
        except ValueError:
            array = np.asarray(None)
        if array.dtype.kind not in "iufb":
            raise InputError(f"{where}: {name} is no array of numbers")
        found[name] = array
    return found
