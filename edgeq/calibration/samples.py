"""Samples that a model reads while statistics are collected: from all over a text, and not too many."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgeq.calibration.importance import Sample, decoder_samples, encoder_samples
from edgeq.engine.model import Model
from edgeq.errors import InputError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

DEFAULT_METHOD = "descent"
CHUNK = 512  # tokens of a decoder's sample, llama.cpp's for importance matrices
_MAX_TOKENS = 1 << 15
_HIDDEN_BYTES = 256 << 20  # what a layer gives for all samples, in memory at a time


@dataclass
class Calibration:
    """A text to calibrate on, and the method that uses it (of ``edgeq.methods``).

    ``skip`` tokens at its start are left for a comparison, if it is long enough.
    """

    text: Path
    method: str = DEFAULT_METHOD
    skip: int = 0
    progress: Callable[[str, int, int], None] = lambda stage, done, total: None
    warn: Callable[[str], None] = lambda message: None

    def samples(self, model: Model, tokenizer: Tokenizer) -> list[list[int]]:
        """Sequences of tokens; raises InputError for a text without any."""
        found = self._samples(model, tokenizer, self.skip)
        if self.skip and not found:
            self.warn(
                f"{self.text}: is too short to keep a part of it for the comparison, which flatters then"
            )
            found = self._samples(model, tokenizer, 0)
        if not found:
            raise InputError(f"{self.text}: has no tokens; give a longer text")
        return found

    def _samples(self, model: Model, tokenizer: Tokenizer, skip: int) -> list[list[int]]:
        if not model.family.generates(model.hp):
            return _spread(_after(encoder_samples(self.text, tokenizer, model.hp.context), skip), _MAX_TOKENS)
        chunk = min(CHUNK, model.hp.context)
        limit = max(chunk, min(_MAX_TOKENS, _HIDDEN_BYTES // (4 * model.hp.hidden)))
        return _spread(decoder_samples(self.text, tokenizer, chunk), limit, -(-skip // chunk))


def _after(samples: Iterator[Sample], tokens: int) -> Iterator[Sample]:
    """The samples behind so many tokens."""
    for sample in samples:
        if tokens <= 0:
            yield sample
        tokens -= len(sample.tokens)


def _spread(samples: Iterator[Sample], limit: int, skip: int = 0) -> list[list[int]]:
    """Every k-th sample after the first ``skip`` ones, k the least power of two that keeps the limit of tokens."""
    kept: list[list[int]] = []
    every, size = 1, 0
    for index, sample in enumerate(samples):
        if index < skip or (index - skip) % every:
            continue
        kept.append(sample.tokens)
        size += len(sample.tokens)
        if size > limit and len(kept) > 1:
            kept, every = kept[::2], 2 * every
            size = sum(map(len, kept))
    return kept
