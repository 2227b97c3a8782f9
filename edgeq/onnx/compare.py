"""How close one ONNX file's answers are to another's, output by output."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edgeq.calibration.inputs import Arrays
from edgeq.runtimes.onnxruntime import OnnxSession

_OF_CLASSES = re.compile(
    "logit|prob|score|class|label", re.IGNORECASE
)  # where the largest of a row is the answer


class OutputCloseness:
    """Sums over samples of one output; no answers are kept."""

    def __init__(self, name: str, counts: bool = True) -> None:
        self.name, self.counts = name, counts
        self.samples = self.other_shapes = 0
        self._cosine_total, self._cosine_least, self._cosines = 0.0, math.inf, 0
        self._error = self._size = self._largest = 0.0
        self._same = self._rows = 0
        self._divergence = 0.0
        self._is_real = True

    def add(self, reference: NDArray[Any], candidate: NDArray[Any]) -> None:
        self.samples += 1
        if reference.shape != candidate.shape:
            self.other_shapes += 1
            return
        if reference.dtype.kind != "f":
            self._is_real = False
            self._same += int(np.count_nonzero(reference == candidate))
            self._rows += reference.size
            return
        a, b = reference.astype(np.float64), candidate.astype(np.float64)
        usable = np.isfinite(a) & (np.abs(a) < 1e30)
        a, b = np.where(usable, a, 0), np.where(usable, b, 0)
        difference = np.abs(a - b)
        self._error += float(np.square(difference).sum())
        self._size += float(np.square(a).sum())
        self._largest = max(self._largest, float(difference.max(initial=0)))
        norms = math.sqrt(float(np.square(a).sum()) * float(np.square(b).sum()))
        if norms > 0:
            cosine = float((a * b).sum()) / norms
            self._cosine_total, self._cosines = self._cosine_total + cosine, self._cosines + 1
            self._cosine_least = min(self._cosine_least, cosine)
        if _OF_CLASSES.search(self.name) and a.ndim >= 2 and a.shape[-1] >= 2:
            same = a.argmax(axis=-1) == b.argmax(axis=-1)
            self._same, self._rows = self._same + int(same.sum()), self._rows + same.size
            self._divergence += float(_divergences(a, b).sum())

    @property
    def kl(self) -> float | None:
        """The mean KL divergence of the classes' probabilities in nats; None for an output that is none of classes."""
        return self._divergence / self._rows if self._is_real and self._rows else None

    @property
    def closeness(self) -> float:
        """The mean cosine, or what the error over all samples makes of it where that is less.

        For vectors of one length ``1 - error² / 2`` is the cosine; of a single number the cosine says nothing, this
        does. 1 where there is nothing to compare; 0 for NaN.
        """
        if not self._is_real:
            return self._same / self._rows if self._rows else 1.0
        if not math.isfinite(self._error):
            return 0.0
        if not self._size:
            return 1.0 if not self._error else 0.0
        by_error = 1 - self._error / self._size / 2
        return min(by_error, self._cosine_total / self._cosines) if self._cosines else by_error

    def summary(self) -> dict[str, Any]:
        found: dict[str, Any] = {"name": self.name, "samples": self.samples, "closeness": self.closeness}
        if self._is_real and self._size:
            found["relative_error"] = math.sqrt(self._error / self._size)
            found["max_error"] = self._largest
        if self._cosines:
            found["cosine_mean"] = self._cosine_total / self._cosines
            found["cosine_min"] = self._cosine_least
        if self._rows:
            found["top1_agreement" if self._is_real else "agreement"] = self._same / self._rows
        if self.kl is not None:
            found["kl_mean"] = self.kl
        if self.other_shapes:
            found["other_shapes"] = self.other_shapes
        if not self.counts:
            found["judged_by"] = "what it is chosen or joined from"
        return found


def is_of_classes(output: str) -> bool:
    """Whether an output's name says that the largest of a row is the answer."""
    return _OF_CLASSES.search(output) is not None


def _divergences(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """KL of each row; rows that are probabilities already are taken as such, others are logits."""
    if (a >= 0).all() and np.allclose(a.sum(axis=-1), 1, atol=1e-3):
        p, q = (np.log(np.maximum(rows, 1e-12)) for rows in (a, b))
    else:
        p, q = (_log_softmax(rows) for rows in (a, b))
    found: NDArray[np.float64] = (np.exp(p) * (p - q)).sum(axis=-1)
    return found


def _log_softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    shifted = logits - logits.max(axis=-1, keepdims=True)
    found: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return found


class Answering(Protocol):
    """What gives a graph's outputs: a session, or one that remembers them."""

    outputs: list[str]

    def run(self, feeds: Arrays, outputs: Sequence[str]) -> list[NDArray[np.float32]]: ...


def compare(
    reference: Answering,
    candidate: OnnxSession,
    samples: Iterable[Arrays],
    uncounted: Collection[str] = (),
) -> list[OutputCloseness]:
    """Both files' answers to the same samples; outputs that are ``uncounted`` do not judge.

    Raises EdgeqError where the runtime refuses.
    """
    outputs = reference.outputs
    found = [OutputCloseness(name, name not in uncounted) for name in outputs]
    for feeds in samples:
        expected, answers = (session.run(feeds, outputs) for session in (reference, candidate))
        for closeness, a, b in zip(found, expected, answers, strict=True):
            closeness.add(np.asarray(a), np.asarray(b))
    return found


def shown(closeness: float) -> str:
    """With four digits, or more where it is so close to 1 that these would hide the distance."""
    distance = abs(1 - closeness)
    hidden = math.isfinite(distance) and 1e-8 < distance < 1e-3
    return f"{closeness:.{1 - math.floor(math.log10(distance)) if hidden else 4}f}"


def worst(found: Iterable[OutputCloseness]) -> float:
    """The least closeness of those that count; integers, which flip at a border, do not where floats are."""
    real = [one.closeness for one in found if one.counts and one._is_real and one.samples > one.other_shapes]
    return min(real, default=1.0)


def worst_kl(found: Iterable[OutputCloseness]) -> float | None:
    """The largest mean KL divergence of the outputs that count; None where no output is one of classes."""
    return max((one.kl for one in found if one.counts and one.kl is not None), default=None)


def within(found: Sequence[OutputCloseness], target: float, max_kl: float | None) -> float:
    """The worst closeness, with the KL divergence on its scale: ``target`` stands for ``max_kl``, 1 for 0."""
    least, kl = worst(found), worst_kl(found)
    if max_kl is None or kl is None:
        return least
    share = kl / max_kl
    allowed = (
        1 - target if share <= 1 else max(1 - target, 1e-3)
    )  # beyond, it shall tell though no cosine may be lost
    return min(least, 1 - (1 - target) - allowed * (share - 1))
