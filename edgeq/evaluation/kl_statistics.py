"""Streaming statistics of two models' answers: windows of logits go in, a few numbers per token are kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeq.evaluation.statistics import group_error, mean_with_error, percentiles, share_error, standard_error
from edgeq.evaluation.token_scores import TokenScores, compare_logits, token_nll

Floats = NDArray[np.float32]

_KL_PERCENTILES = (90, 95, 99, 99.9)
_DELTA_PERCENTILES = (0.1, 1, 5, 10, 25, 50, 75, 90, 95, 99, 99.9)


class PerplexityStatistics:
    """The perplexity of one model, window by window."""

    def __init__(self) -> None:
        self._nll: list[Floats] = []

    def add(self, logits: Floats, following: Sequence[int]) -> None:
        """A window's logits ``[n, vocab]`` and the tokens that came after each row."""
        self._nll.append(token_nll(logits, following))

    def summary(self) -> dict[str, float]:
        """``tokens``, ``perplexity`` and its standard errors."""
        nll = np.concatenate(self._nll)
        return {"tokens": len(nll)} | perplexity_summary(nll, _numbers(self._nll))


class KlStatistics:
    """A candidate against a reference, window by window; about 32 bytes a token are kept.

    Every ``add`` is one window: its tokens belong together when errors are estimated.
    """

    def __init__(self) -> None:
        self._scores: list[TokenScores] = []
        self._following: list[NDArray[np.int32]] = []
        self._positions: list[NDArray[np.int32]] = []

    def add(
        self, reference: Floats, candidate: Floats, following: Sequence[int], first_position: int = 0
    ) -> None:
        """Both models' logits ``[n, vocab]`` of a window, and the tokens that came after each row.

        ``first_position`` is where in the model's context the first row stands.
        """
        self.add_scores(compare_logits(reference, candidate, following), following, first_position)

    def add_scores(self, scores: TokenScores, following: Sequence[int], first_position: int = 0) -> None:
        """A window that was scored already."""
        count = len(scores.kl)
        self._scores.append(scores)
        self._following.append(np.asarray(following, np.int32))
        self._positions.append(np.arange(first_position, first_position + count, dtype=np.int32))

    def scores(self) -> TokenScores:
        """All windows' scores one after the other."""
        return TokenScores._make(map(np.concatenate, zip(*self._scores, strict=True)))

    @property
    def windows(self) -> NDArray[np.int64]:
        """The number of each token's window."""
        return _numbers([scores.kl for scores in self._scores])

    @property
    def following(self) -> NDArray[np.int32]:
        """The token after each position."""
        return np.concatenate(self._following)

    @property
    def positions(self) -> NDArray[np.int32]:
        """Where in the context each position is."""
        return np.concatenate(self._positions)

    def summary(self) -> dict[str, float]:
        """Everything that llama-perplexity tells of two models, and top-5 agreement.

        KL in nats; agreements and Δp (the candidate's probability of the token that came less the reference's) as
        shares of 1. ``*_standard_error`` takes tokens as independent, ``*_window_error`` windows only.
        """
        scores, windows = self.scores(), self.windows
        return {"tokens": len(scores.kl), "windows": len(self._scores)} | _summary(scores, windows)

    def slice(self, chosen: NDArray[np.bool_]) -> dict[str, float]:
        """The few numbers of some of the tokens: how many, KL, top-1 agreement, log of the ratio of perplexities."""
        own, windows = (
            TokenScores._make(values[chosen] for values in self.scores()),
            self.windows[chosen],
        )
        ratio = own.nll - own.reference_nll
        return {
            "tokens": len(own.kl),
            **mean_with_error(own.kl, "kl"),
            "kl_window_error": group_error(own.kl, windows),
            "top1_agreement": float(own.same_top.mean()),
            **mean_with_error(ratio[np.isfinite(ratio)], "log_perplexity_ratio"),
        }


def perplexity_summary(nll: Floats, windows: NDArray[Any], name: str = "perplexity") -> dict[str, float]:
    """e to the mean of the negative log-likelihoods, its error by that of the mean."""
    nll, windows = nll[~np.isnan(nll)], windows[~np.isnan(nll)]
    value = float(np.exp(nll.mean(dtype=np.float64)))
    return {
        name: value,
        f"{name}_standard_error": value * standard_error(nll),
        f"{name}_window_error": value * group_error(nll, windows),
    }


def _summary(scores: TokenScores, windows: NDArray[np.int64]) -> dict[str, float]:
    kl, count = scores.kl, len(scores.kl)
    known = ~np.isnan(scores.nll)
    nll, base = scores.nll[known].astype(np.float64), scores.reference_nll[known].astype(np.float64)
    change = np.exp(-nll) - np.exp(-base)
    ratio = perplexity_summary((nll - base).astype(np.float32), windows[known], "perplexity_ratio")
    top1, square = float(scores.same_top.mean()), np.square(change)
    rms = float(np.sqrt(square.mean()))
    return {
        **mean_with_error(kl, "kl"),
        "kl_window_error": group_error(kl, windows),
        "kl_median": float(np.median(kl)),
        **percentiles(kl, "kl", _KL_PERCENTILES),
        "kl_max": float(kl.max()),
        "top1_agreement": top1,
        "top1_standard_error": share_error(top1, count),
        "top5_agreement": float(scores.top5.mean(dtype=np.float64)),
        "top5_standard_error": standard_error(scores.top5),
        **mean_with_error(change, "delta_p"),
        "delta_p_rms": rms,
        "delta_p_rms_standard_error": standard_error(square) / (2 * rms) if rms else 0.0,
        "delta_p_min": float(change.min()),
        **percentiles(change, "delta_p", _DELTA_PERCENTILES),
        "delta_p_max": float(change.max()),
        **perplexity_summary(scores.nll, windows),
        **perplexity_summary(scores.reference_nll, windows, "perplexity_float"),
        **ratio,
    }


def _numbers(windows: Sequence[NDArray[Any]]) -> NDArray[np.int64]:
    return np.repeat(np.arange(len(windows)), [len(window) for window in windows])
