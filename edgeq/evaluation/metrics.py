"""Measures of closeness: KL divergence and top-1 agreement for decoders, cosine for encoders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


def log_softmax(logits: Floats) -> NDArray[np.float64]:
    """Log probabilities over the last axis, float64."""
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    result: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return result


@dataclass
class Divergence:
    """Compares two models' logits window by window; keeps a few numbers per token, never logits."""

    _kl: list[NDArray[np.float64]] = field(default_factory=list)
    _same: list[NDArray[np.bool_]] = field(default_factory=list)
    _nll: list[NDArray[np.float64]] = field(default_factory=list)
    _reference_nll: list[NDArray[np.float64]] = field(default_factory=list)

    def add(self, reference: Floats, candidate: Floats, tokens: Sequence[int]) -> None:
        """Logits ``[T, vocab]`` of both models after each of the window's ``T`` tokens."""
        p, q = log_softmax(reference), log_softmax(candidate)
        self._kl.append((np.exp(p) * (p - q)).sum(axis=-1))
        self._same.append(p.argmax(axis=-1) == q.argmax(axis=-1))
        following, rows = np.asarray(tokens[1:]), np.arange(len(tokens) - 1)
        self._nll.append(-q[rows, following])
        self._reference_nll.append(-p[rows, following])

    def summary(self) -> dict[str, float]:
        """Mean KL in nats with its standard error, its 99th percentile, top-1 agreement, both perplexities."""
        kl, same = np.concatenate(self._kl), np.concatenate(self._same)
        return {
            "tokens": len(kl),
            "kl_mean": float(kl.mean()),
            "kl_standard_error": float(kl.std() / np.sqrt(len(kl))),
            "kl_99": float(np.quantile(kl, 0.99)),
            "top1_agreement": float(same.mean()),
            "perplexity": float(np.exp(np.concatenate(self._nll).mean())),
            "perplexity_float": float(np.exp(np.concatenate(self._reference_nll).mean())),
        }


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
