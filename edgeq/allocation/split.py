"""A text in two parts: sequences that a choice of types is measured on, and those that are calibrated on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgeq.calibration.text import Text
from edgeq.errors import InputError
from edgeq.evaluation.windows import consecutive
from edgeq.source import ModelSource

_CHARACTERS = 4_000_000  # of a text that are looked at
_WINDOW = 128  # tokens of a decoder's forward pass
_HELD_OUT = 0.25  # of the text: never calibrated on, only measured on
_LARGE = 300_000_000  # parameters from which on fewer tokens are read
_LOGITS = 1 << 26  # float32 logits that are kept of the float model: 256 MB


@dataclass(frozen=True)
class _Most:
    """Tokens that are read at most."""

    calibrated: int
    probed: int
    measured: int


_OF_DECODERS, _OF_LARGE, _OF_ENCODERS = (
    _Most(16_384, 4096, 4096),
    _Most(4096, 512, 1024),
    _Most(8192, 1024, 2048),
)


@dataclass(frozen=True)
class Split:
    """Sequences of tokens. ``probed`` are some of those calibrated on.

    What is measured on is the text's first ``compared`` tokens, which nothing else may calibrate on either.
    """

    measured: list[list[int]]
    calibrated: list[list[int]]
    probed: list[list[int]]
    compared: int

    def counts(self) -> dict[str, int]:
        """Tokens of each part."""
        parts = {"calibrated": self.calibrated, "probed": self.probed, "measured": self.measured}
        return {name: sum(map(len, sequences)) for name, sequences in parts.items()}


def is_large(source: ModelSource) -> bool:
    """Whether a model is measured on fewer tokens, since each takes longer."""
    return source.parameters() > _LARGE


def split_of(source: ModelSource, text: Text) -> Split:
    """Windows of a decoder's text, lines of an encoder's. Raises InputError for a text too short for both parts."""
    found = _of_windows(source, text) if source.family.generates(source.hp) else _of_lines(source, text)
    if not found.calibrated or not found.measured:
        raise InputError(f"{text.name}: is too short to calibrate and to measure on; give a longer text")
    return found


def _of_windows(source: ModelSource, text: Text) -> Split:
    tokens = source.tokenizer().encode(text.content[:_CHARACTERS]).ids
    most = _OF_LARGE if is_large(source) else _OF_DECODERS
    cut = min(most.measured, max(2 * _WINDOW, _LOGITS // source.hp.vocab), int(len(tokens) * _HELD_OUT))
    width = min(_WINDOW, source.hp.context)
    calibrated = _windows(tokens[cut:], width, most.calibrated)
    flat = [token for window in calibrated for token in window]
    return Split(_windows(tokens[:cut], width, cut), calibrated, _windows(flat, width, most.probed), cut)


def _windows(tokens: Sequence[int], width: int, most: int) -> list[list[int]]:
    """Windows of ``width`` tokens, ``most`` tokens at most, taken evenly from all of them."""
    return _evenly(consecutive(tokens, width), max(1, most // width))


def _of_lines(source: ModelSource, text: Text) -> Split:
    tokenizer, most = source.tokenizer(), _OF_ENCODERS
    tokenizer.enable_truncation(source.hp.context)
    lines = [tokenizer.encode(line).ids for line in Text(text.name, text.content[:_CHARACTERS]).lines()]
    ends = np.cumsum([len(line) for line in lines])
    share = min(most.measured, _HELD_OUT * float(ends[-1]))
    cut = int(np.searchsorted(ends, share, side="right"))
    mean = max(1, int(ends[-1]) // len(lines))
    calibrated = _evenly(lines[cut:], max(1, most.calibrated // mean))
    probed = _evenly(calibrated, max(1, most.probed // mean))
    return Split(lines[:cut], calibrated, probed, int(ends[cut - 1]) if cut else 0)


def _evenly(sequences: list[list[int]], most: int) -> list[list[int]]:
    if len(sequences) <= most:
        return sequences
    return [sequences[i] for i in np.linspace(0, len(sequences) - 1, most).round().astype(int)]
