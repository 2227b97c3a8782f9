"""The proof that goes with every export: the file opened in a real runtime and compared with the float model."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edgeq.calibration.text import Text
from edgeq.engine import model as engine
from edgeq.errors import InputError
from edgeq.evaluation.metrics import Divergence, cosine_summary, label_summary
from edgeq.evaluation.windows import consecutive
from edgeq.gguf_source import GGUFSource
from edgeq.source import ModelSource, SourceModel

Floats = NDArray[np.float32]
Progress = Callable[[int, int], None]

WINDOW = 128  # tokens of one forward pass
COMPARED_TOKENS, _TOKENS_OF_LARGE_MODEL = 1024, 256  # the text's first ones
_SENTENCES = 64
LONGEST = 4096  # tokens of one sentence, for which runtimes have room at once
_DECODED = 32  # tokens generated to measure the speed of decoding


class DecoderRuntime(Protocol):
    """A loaded decoder in some runtime."""

    name: str
    load_seconds: float

    def window(self, tokens: Sequence[int], first: int = 0) -> Floats:
        """Logits ``[T - first, vocab]`` of a fresh sequence, from its row ``first`` on."""

    def step(self, token: int) -> Floats:
        """Logits ``[vocab]`` after one more token of the sequence that ``window`` began."""


class EncoderRuntime(Protocol):
    """A loaded encoder in some runtime."""

    name: str
    load_seconds: float

    def embed(self, text: str, tokens: Sequence[int]) -> Floats:
        """The pooled vector ``[C]`` of one sentence."""

    def scores(self, text: str, tokens: Sequence[int]) -> Floats:
        """A classifier's logits of one sentence: ``[1, labels]``, or ``[T, labels]`` of its tokens."""


def model_of(source: ModelSource) -> engine.Model:
    """The model of a source in the embedded engine, computed in floats."""
    if isinstance(source, GGUFSource):
        return engine.from_gguf(source.file)
    assert isinstance(source, SourceModel)
    return engine.from_source(source)


@dataclass
class Reference:
    """The float model's answers on a text, computed once and compared with every export of the model."""

    source: ModelSource
    text: Text
    model: engine.Model = field(init=False)

    def __post_init__(self) -> None:
        self.model = model_of(self.source)
        self.tokenizer = self.source.tokenizer()

    @property
    def longest(self) -> int:
        """Tokens at which a sentence is cut."""
        return min(self.source.hp.context, LONGEST)

    def windows(self) -> list[list[int]]:
        """The text in windows of tokens, as many as are compared."""
        large = not getattr(self.model.weights, "keep", True)
        limit = _TOKENS_OF_LARGE_MODEL if large else COMPARED_TOKENS
        ids = self.tokenizer.encode(self.text.content).ids[:limit]
        windows = consecutive(ids, min(WINDOW, self.source.hp.context))
        if not windows:
            raise InputError(f"{self.text.name}: has fewer than two tokens; give a longer text")
        return windows

    def sentences(self) -> list[tuple[str, list[int]]]:
        """The text's lines with their tokens, cut where they are too long."""
        lines = self.text.lines()[:_SENTENCES]
        self.tokenizer.enable_truncation(self.longest)
        return [(line, self.tokenizer.encode(line).ids) for line in lines]


def prove_decoder(reference: Reference, runtime: DecoderRuntime, progress: Progress) -> dict[str, Any]:
    """KL divergence, top-1 agreement, perplexities and speeds of a decoder."""
    divergence, windows = Divergence(), reference.windows()
    rates = []
    for done, tokens in enumerate(windows, start=1):
        expected = reference.model.logits(tokens)
        started = time.perf_counter()
        logits = runtime.window(tokens)
        rates.append(len(tokens) / (time.perf_counter() - started))
        divergence.add(expected, logits, tokens)
        progress(done, len(windows))
    # The runtime continues the last window greedily; windows leave room for it in every context.
    seconds = [_timed(lambda: runtime.step(int(logits[-1].argmax()))) for _ in range(_DECODED)]
    return divergence.summary() | {
        "prefill_tokens_per_second": statistics.median(rates),
        "decode_tokens_per_second": 1 / statistics.median(seconds),
    }


def prove_encoder(reference: Reference, runtime: EncoderRuntime, progress: Progress) -> dict[str, Any]:
    """Cosines to the float model, of a classifier how alike its logits are; sentences per second, one at a time."""
    classifies = reference.source.hp.head != "none"
    expected, answers, seconds = [], [], []
    sentences = reference.sentences()
    for done, (text, tokens) in enumerate(sentences, start=1):
        model = reference.model
        expected.append(model.class_logits(tokens) if classifies else model.embed(tokens))
        started = time.perf_counter()
        answers.append(runtime.scores(text, tokens) if classifies else runtime.embed(text, tokens))
        seconds.append(time.perf_counter() - started)
        progress(done, len(sentences))
    rate = {"sentences_per_second": 1 / statistics.median(seconds)}
    if classifies:
        return label_summary(expected, answers) | rate
    return cosine_summary(np.stack(expected), np.stack(answers)) | rate


def _timed(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def prove(
    reference: Reference,
    runtime: DecoderRuntime | EncoderRuntime,
    progress: Progress = lambda done, all: None,
) -> dict[str, Any]:
    """The proof of one written file, as it goes into edgeq.json."""
    if reference.source.family.generates(reference.source.hp):
        measured = prove_decoder(reference, runtime, progress)  # type: ignore[arg-type]
    else:
        measured = prove_encoder(reference, runtime, progress)  # type: ignore[arg-type]
    text = reference.text
    return {
        "runtime": runtime.name,
        "text": text.name,
        "builtin_text": text.builtin,
        "load_seconds": runtime.load_seconds,
    } | measured
