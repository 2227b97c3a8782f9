"""What is kept of two models' logits: a few numbers for every token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

TOP = 5
NO_TOKEN = -1  # what follows the last token of a text
_BLOCK_VALUES = 1 << 18  # of logits worked on at a time: they stay in a core's cache


class TokenScores(NamedTuple):
    """One value for each position, float32 ``[n]`` in nats.

    ``nll`` and ``reference_nll`` are -log p of the token that follows, NaN where none does. ``kl`` is the divergence of
    the candidate's distribution from the reference's; ``same_top`` whether both take the same token for the likeliest,
    ``top5`` the share of the reference's five likeliest tokens that are among the candidate's.
    """

    nll: Floats
    reference_nll: Floats
    kl: Floats
    same_top: NDArray[np.bool_]
    top5: Floats


def compare_logits(reference: Floats, candidate: Floats, following: Sequence[int]) -> TokenScores:
    """Scores of logits ``[n, vocab]`` of both models, where ``following[i]`` came after row i (NO_TOKEN: nothing).

    The definitions are llama-perplexity's (tools/perplexity, ``log_softmax`` and ``kl_divergence``). Exponentials are
    float32, sums float64.
    """
    targets = np.asarray(following, np.int64)
    step = max(1, _BLOCK_VALUES // reference.shape[1])
    parts = [
        _compare(reference[i : i + step], candidate[i : i + step], targets[i : i + step])
        for i in range(0, max(1, len(targets)), step)
    ]
    return TokenScores._make(map(np.concatenate, zip(*parts, strict=True)))


def log_sums(logits: Floats) -> NDArray[np.float64]:
    """The logarithm of each row's sum of exponentials, by which logits ``[n, vocab]`` become log probabilities."""
    step = max(1, _BLOCK_VALUES // logits.shape[1])
    parts = [_exponentials(logits[i : i + step])[2] for i in range(0, max(1, len(logits)), step)]
    return np.concatenate(parts) + logits.max(axis=1)


def token_nll(logits: Floats, following: Sequence[int]) -> Floats:
    """-log p of the token that follows each row of logits ``[n, vocab]``; NaN where none does."""
    return _nll(logits, log_sums(logits), np.asarray(following, np.int64))


def _compare(reference: Floats, candidate: Floats, targets: NDArray[np.int64]) -> TokenScores:
    p, weights, log_p = _exponentials(reference)
    q, _, log_q = _exponentials(candidate)
    nll, reference_nll = _nll(q, log_q, targets), _nll(p, log_p, targets)
    top_p, top_q = top_tokens(reference), top_tokens(candidate)
    with np.errstate(invalid="ignore"):  # -inf - -inf, where the weight is 0
        np.subtract(p, q, out=p)
    p[weights == 0] = 0
    difference = np.multiply(weights, p, out=p).sum(axis=1, dtype=np.float64)
    kl = difference / np.exp(log_p) + log_q - log_p
    return TokenScores(
        nll, reference_nll, kl.astype(np.float32), top_p[:, 0] == top_q[:, 0], shared_top(top_p, top_q)
    )


def _exponentials(logits: Floats) -> tuple[Floats, Floats, NDArray[np.float64]]:
    """Logits less their largest, their exponentials, and the logarithm of their sum."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    weights = np.exp(shifted)
    return shifted, weights, np.log(weights.sum(axis=1, dtype=np.float64))


def _nll(logits: Floats, log_sum: NDArray[np.float64], targets: NDArray[np.int64]) -> Floats:
    known = targets != NO_TOKEN
    at = logits[np.arange(len(targets)), np.where(known, targets, 0)]
    return np.where(known, log_sum - at, np.nan).astype(np.float32)


def top_tokens(logits: Floats, count: int = TOP) -> NDArray[np.int64]:
    """The likeliest tokens of each row, the likeliest first: ``[n, count]``, or as many as the vocabulary has.

    One ``argmax`` after the other, which is five times as fast as a partition for so few.
    """
    left, rows = logits.copy(), np.arange(len(logits))
    found = np.empty((len(logits), min(count, logits.shape[1])), np.int64)
    for i in range(found.shape[1]):
        found[:, i] = left.argmax(axis=1)
        left[rows, found[:, i]] = -np.inf
    return found


def shared_top(reference: NDArray[np.int64], candidate: NDArray[np.int64]) -> Floats:
    """The share of each row's tokens that the other's row has, too, in whatever order: float32 ``[n]``."""
    same = reference[:, :, None] == candidate[:, None, :]
    return same.any(axis=2).mean(axis=1, dtype=np.float32)
