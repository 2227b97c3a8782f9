"""Measures of closeness: KL divergence and top-1 agreement for decoders, cosine for encoders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from edgeq.evaluation.kl_statistics import KlStatistics
from edgeq.evaluation.token_scores import NO_TOKEN

Floats = NDArray[np.float32]

_PROVEN = (
    "tokens",
    "kl_mean",
    "kl_standard_error",
    "kl_99",
    "top1_agreement",
    "perplexity",
    "perplexity_float",
)


@dataclass
class Divergence:
    """Compares two models' logits window by window; keeps a few numbers per token, never logits."""

    _statistics: KlStatistics = field(default_factory=KlStatistics)

    def add(self, reference: Floats, candidate: Floats, tokens: Sequence[int]) -> None:
        """Logits ``[T, vocab]`` of both models after each of the window's ``T`` tokens."""
        self._statistics.add(reference, candidate, [*tokens[1:], NO_TOKEN])

    def summary(self) -> dict[str, float]:
        """Mean KL in nats with its standard error, its 99th percentile, top-1 agreement, both perplexities."""
        found = self._statistics.summary()
        return {key: found[key] for key in _PROVEN}


def cosines(a: Floats, b: Floats) -> Floats:
    """Cosine of each row of ``a`` with the same row of ``b``."""
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    result: Floats = (a * b).sum(axis=1) / norms
    return result


def label_summary(reference: Sequence[Floats], candidate: Sequence[Floats]) -> dict[str, float]:
    """How alike a classifier's logits are, a matrix ``[rows, labels]`` for each sentence.

    The largest difference, as a share of the float model's range of logits, and how many rows have the same best label
    (left out where there is one label).
    """
    expected, answers = np.concatenate(reference), np.concatenate(candidate)
    difference = float(np.abs(answers - expected).max())
    summary = {"sentences": len(reference), "logit_difference": difference / float(np.ptp(expected) or 1.0)}
    if expected.shape[1] > 1:
        summary["same_label"] = float((expected.argmax(axis=1) == answers.argmax(axis=1)).mean())
    return summary


def cosine_summary(reference: Floats, candidate: Floats) -> dict[str, float]:
    """Mean and least cosine over rows."""
    values = cosines(reference, candidate)
    return {"sentences": len(values), "cosine_mean": float(values.mean()), "cosine_min": float(values.min())}
