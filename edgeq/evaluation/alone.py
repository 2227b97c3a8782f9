"""What a model answers when a single one of its tensors is changed, beside what it answered before."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from edgeq.calibration.text import Text
from edgeq.evaluation.decoders import Beside, evaluate_decoder
from edgeq.evaluation.loss import Loss
from edgeq.evaluation.proof import DecoderRuntime, EncoderRuntime
from edgeq.evaluation.windows import Windows, windows_of

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Floats = NDArray[np.float32]
R = TypeVar("R", covariant=True)
Changed = Callable[[str, Floats], R]  # the model with other values of one tensor

_TOKENS, _CONTEXT = 2048, 256  # of a decoder, read for every tensor
_SENTENCES = 32  # of an encoder
_SHOWN_TOKENS = 128  # whose outputs of every layer are looked at


class Reader(Protocol):
    """A text that a model reads again and again; ``shown`` are some tokens of it."""

    shown: list[list[int]]

    def alone(self, name: str, values: Floats) -> dict[str, float]:
        """How far the answers are from before with these values for one tensor."""


class WindowReader:
    """Of a decoder: the KL divergence of the tokens that follow."""

    def __init__(self, windows: Windows, runtime: DecoderRuntime, changed: Changed[DecoderRuntime]) -> None:
        self.windows, self.runtime, self.changed = windows, runtime, changed
        self.shown = [next(iter(windows)).tokens[:_SHOWN_TOKENS]]

    def alone(self, name: str, values: Floats) -> dict[str, float]:
        summary = evaluate_decoder(self.changed(name, values), self.windows, Beside(self.runtime)).summary()
        kept = ("kl_mean", "kl_standard_error", "kl_window_error", "top1_agreement")
        return {key: summary[key] for key in kept}


class SentenceReader:
    """Of an encoder or a classifier: its vectors' cosines, or the KL divergence of its labels."""

    def __init__(
        self,
        sentences: Sequence[list[int]],
        loss: Loss,
        runtime: EncoderRuntime,
        changed: Changed[EncoderRuntime],
    ) -> None:
        self.sentences, self.loss, self.changed = sentences, loss, changed
        ends = np.cumsum([len(tokens) for tokens in sentences])
        self.shown = list(sentences[: 1 + int(np.searchsorted(ends, _SHOWN_TOKENS))])
        self.expected = [loss.answer(runtime, tokens) for tokens in sentences]

    def alone(self, name: str, values: Floats) -> dict[str, float]:
        runtime, comparison = self.changed(name, values), self.loss.compare()
        for tokens, expected in zip(self.sentences, self.expected, strict=True):
            comparison.add(expected, self.loss.answer(runtime, tokens), tokens)
        return comparison.summary()


def windows_for(text: Text, tokenizer: Tokenizer, longest: int, context: int | None) -> Windows:
    """As much of a text as is read for every tensor of a decoder."""
    width = context or min(_CONTEXT, longest)
    return windows_of(text.content, text.name, tokenizer, longest, width, max_tokens=_TOKENS)


def sentences_for(text: Text, tokenizer: Tokenizer, longest: int) -> list[list[int]]:
    """As many of a text's lines as are read for every tensor of an encoder."""
    tokenizer.enable_truncation(longest)
    return [tokenizer.encode(line).ids for line in text.lines()[:_SENTENCES]]
