"""KL divergence of a model with some tensors quantized to the same model in float, on windows of a text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from edgeq.allocation.trial import Coder, with_coded
from edgeq.engine.model import Model
from edgeq.engine.weights import Floats
from edgeq.evaluation.metrics import Divergence


class GivesLogits(Protocol):
    """A model in any runtime."""

    def logits(self, tokens: Sequence[int]) -> Floats:
        """``[T, vocab]`` after each token of a fresh sequence."""


class Meter:
    """Holds the float model's logits on its windows, ``[T, vocab]`` each: keep the windows few."""

    def __init__(
        self, model: Model, windows: Sequence[Sequence[int]], shapes: Mapping[str, tuple[int, ...]]
    ) -> None:
        self._model, self._windows, self._shapes = model, windows, shapes
        self._reference: list[Floats] = []

    @property
    def tokens(self) -> int:
        return sum(len(window) for window in self._windows)

    def kl(self, types: Mapping[str, str], coder: Coder) -> float:
        """Mean KL in nats with these tensors in these types, all others float."""
        coded = {name: coder(name, kind) for name, kind in types.items()}
        return self.summary(with_coded(self._model, coded, self._shapes))["kl_mean"]

    def summary(self, trial: GivesLogits) -> dict[str, float]:
        """Mean KL with its standard error, top-1 agreement and perplexities, as ``Divergence`` has them."""
        divergence = Divergence()
        for index, window in enumerate(self._windows):
            if index == len(self._reference):
                self._reference.append(self._model.logits(window))
            divergence.add(self._reference[index], trial.logits(window), window)
        return divergence.summary()


def windows_of(tokens: Sequence[int], width: int, most: int) -> list[list[int]]:
    """Windows of ``width`` tokens, ``most`` tokens at most, taken evenly from all of them."""
    whole = [list(tokens[at : at + width]) for at in range(0, len(tokens), width)]
    whole = [window for window in whole if len(window) > 1]
    wanted = max(1, most // width)
    if len(whole) <= wanted:
        return whole
    return [whole[i] for i in np.linspace(0, len(whole) - 1, wanted).round().astype(int)]
