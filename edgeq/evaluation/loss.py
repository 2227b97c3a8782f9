"""What a changed model loses beside the float one, as one number; which one depends on what the model answers with.

Each grows with the square of a small disturbance, so the losses of several tensors add up as if each were alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from edgeq.errors import InputError
from edgeq.evaluation.metrics import Divergence
from edgeq.evaluation.statistics import mean_with_error
from edgeq.evaluation.token_scores import NO_TOKEN, compare_logits
from edgeq.families import Family, HyperParameters

if TYPE_CHECKING:
    from edgeq.source import ModelSource

Floats = NDArray[np.float32]
Kind = Literal["decoder", "encoder", "classifier"]


def kind_of(family: Family, hp: HyperParameters) -> Kind:
    """What a model answers with: logits, vectors or a classifier's scores."""
    return "decoder" if family.generates(hp) else "encoder" if hp.head == "none" else "classifier"


class Comparison(Protocol):
    """Takes in two models' answers to the same tokens, and keeps a few numbers of each."""

    def add(self, reference: Floats, candidate: Floats, tokens: Sequence[int]) -> None:
        """One sequence's answers."""

    def summary(self) -> dict[str, float]:
        """Means and errors of what was added."""


class LabelDivergence:
    """KL divergence of a classifier's labels, ``[rows, labels]``; a single logit is that of yes against no."""

    def __init__(self) -> None:
        self._kl: list[Floats] = []
        self._same: list[NDArray[np.bool_]] = []

    def add(self, reference: Floats, candidate: Floats, tokens: Sequence[int]) -> None:
        expected, answers = _of_two(reference), _of_two(candidate)
        scores = compare_logits(expected, answers, [NO_TOKEN] * len(expected))
        self._kl.append(scores.kl)
        self._same.append(scores.same_top)

    def summary(self) -> dict[str, float]:
        """``answers``, ``kl_mean`` in nats with its standard error, ``same_label``."""
        values = np.concatenate(self._kl)
        same = float(np.concatenate(self._same).mean())
        return {"answers": len(values), **mean_with_error(values, "kl"), "same_label": same}


def _of_two(logits: Floats) -> Floats:
    return np.concatenate([logits, np.zeros_like(logits)], axis=1) if logits.shape[1] == 1 else logits


class VectorDistance:
    """Cosines of an encoder's vectors ``[C]``, summed as distances, since small ones vanish beside 1."""

    def __init__(self) -> None:
        self._distances: list[float] = []

    def add(self, reference: Floats, candidate: Floats, tokens: Sequence[int]) -> None:
        a, b = (_unit(vector) for vector in (reference, candidate))
        self._distances.append(float(np.square(a - b).sum()) / 2)

    def summary(self) -> dict[str, float]:
        """``sentences``, ``cosine_mean`` with its standard error, ``cosine_min``."""
        values = np.asarray(self._distances)
        found = mean_with_error(values, "cosine")
        return {"sentences": len(values), **found, "cosine_mean": 1 - found["cosine_mean"]} | {
            "cosine_min": float(1 - values.max())
        }


def _unit(vector: Floats) -> NDArray[np.float64]:
    wide = vector.astype(np.float64)
    size = float(np.linalg.norm(wide))
    if not np.isfinite(size):
        raise InputError("the model gives vectors that are no numbers: its weights are damaged")
    return wide / (size or 1.0)


@dataclass(frozen=True)
class Loss:
    """How the loss of one kind of model is measured and told.

    Attributes:
        key: its name in records: "kl" in nats, "cosine" for 1 - mean cosine.
        option: by which a user limits it.
        noun: what is measured, in words.
        answer: what a runtime (``evaluation.proof``) answers to a sequence of tokens.
        compare: makes an empty comparison.
    """

    key: Literal["kl", "cosine"]
    option: str
    noun: str
    answer: Callable[[Any, Sequence[int]], Floats]
    compare: Callable[[], Comparison]

    def value(self, summary: dict[str, float]) -> float:
        """The loss that a summary of ``compare`` says."""
        return summary["kl_mean"] if self.key == "kl" else 1 - summary["cosine_mean"]

    def told(self, loss: float) -> str:
        """A loss in words."""
        return f"a KL of {loss:.4g}" if self.key == "kl" else f"a cosine of {1 - loss:.6g}"


def _logits(runtime: Any, tokens: Sequence[int]) -> Floats:
    logits: Floats = runtime.window(tokens)
    return logits


def _vector(runtime: Any, tokens: Sequence[int]) -> Floats:
    vector: Floats = runtime.embed("", tokens)
    return vector


def _scores(runtime: Any, tokens: Sequence[int]) -> Floats:
    scores: Floats = runtime.scores("", tokens)
    return scores


LOSSES: dict[Kind, Loss] = {
    "decoder": Loss("kl", "--max-kl", "KL divergence", _logits, Divergence),
    "classifier": Loss("kl", "--max-kl", "KL divergence", _scores, LabelDivergence),
    "encoder": Loss("cosine", "--min-cosine", "cosine", _vector, VectorDistance),
}


def loss_of(source: ModelSource) -> Loss:
    """The loss of a model."""
    return LOSSES[kind_of(source.family, source.hp)]
