"""A decoder's answers on a text: its perplexity, and beside a reference how far they are from that."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edgeq.errors import EdgeqError, InputError
from edgeq.evaluation.kl_statistics import KlStatistics, PerplexityStatistics
from edgeq.evaluation.token_scores import TokenScores, compare_logits
from edgeq.evaluation.windows import Window, Windows

Floats = NDArray[np.float32]
Progress = Callable[[int, int], None]


class ReadsWindows(Protocol):
    """A decoder that gives logits: ``evaluation.proof.DecoderRuntime`` without generation."""

    name: str

    def window(self, tokens: list[int], first: int = 0) -> Floats:
        """Logits ``[T - first, vocab]`` of a fresh sequence, from its row ``first`` on."""


class Comparison(Protocol):
    """What a candidate is compared with, window by window: a model beside it, or a log."""

    @property
    def name(self) -> str:
        """What it is, for people."""

    def compare(self, window: Window, logits: Floats) -> TokenScores:
        """Scores of the candidate's logits ``[n, vocab]`` of a window's scored rows."""


@dataclass
class Beside:
    """A reference model that reads every window, too."""

    runtime: ReadsWindows

    @property
    def name(self) -> str:
        return self.runtime.name

    def compare(self, window: Window, logits: Floats) -> TokenScores:
        reference = scored_rows(self.runtime, window)
        if reference.shape != logits.shape:
            raise InputError(
                f"the reference has {reference.shape[1]} tokens in its vocabulary, the model {logits.shape[1]}"
            )
        return compare_logits(reference, logits, window.following)


@dataclass
class DecoderAnswers:
    """What was measured: ``statistics`` with a reference, ``perplexity`` without one."""

    perplexity: PerplexityStatistics = field(default_factory=PerplexityStatistics)
    statistics: KlStatistics | None = None
    seconds: list[float] = field(default_factory=list)  # that the candidate took for each window

    def summary(self) -> dict[str, float]:
        """The statistics as one record."""
        return (self.statistics or self.perplexity).summary()


def scored_rows(runtime: ReadsWindows, window: Window) -> Floats:
    """The rows of a window that are scored; raises EdgeqError where they are no numbers."""
    with np.errstate(all="ignore"):  # what overflowed is reported here, once
        logits = runtime.window(window.tokens, window.first)[:-1]
    if not np.isfinite(logits.max(initial=-np.inf)):
        raise EdgeqError(f"{runtime.name} gives no finite logits: the model's weights are damaged")
    return logits


def evaluate_decoder(
    candidate: ReadsWindows,
    windows: Windows,
    reference: Comparison | None = None,
    progress: Progress = lambda done, total: None,
    watch: Callable[[Window, Floats], None] = lambda window, logits: None,
) -> DecoderAnswers:
    """Read every window with the candidate and, window by window, compare with the reference.

    No logits are kept; ``watch`` sees the candidate's scored rows as they come. Raises EdgeqError as the runtimes do.
    """
    answers = DecoderAnswers(statistics=KlStatistics() if reference else None)
    for done, window in enumerate(windows, start=1):
        started = time.perf_counter()
        logits = scored_rows(candidate, window)
        answers.seconds.append(time.perf_counter() - started)
        watch(window, logits)
        if reference is not None and answers.statistics is not None:
            scores = reference.compare(window, logits)
            answers.statistics.add_scores(scores, window.following, window.first)
        else:
            answers.perplexity.add(logits, window.following)
        progress(done, len(windows))
    return answers
