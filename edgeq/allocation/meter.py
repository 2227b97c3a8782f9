"""What a model with some tensors quantized loses to the same model in float, on sequences of a text."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from edgeq.engine.model import Model
from edgeq.engine.replaced import EncodedMatrix, with_replaced
from edgeq.engine.weights import Floats
from edgeq.evaluation.loss import Loss
from edgeq.evaluation.proof import DecoderRuntime, EncoderRuntime
from edgeq.evaluation.runtimes import EmbeddedRuntime

Runtime = DecoderRuntime | EncoderRuntime
Coder = Callable[[str, str], EncodedMatrix]  # (tensor, type) → its rows encoded


class Meter:
    """Holds the float model's answers to its sequences, of a decoder ``[T, vocab]`` each: keep them few."""

    def __init__(self, model: Model, sequences: Sequence[Sequence[int]], loss: Loss) -> None:
        self._model, self._sequences, self._loss = model, sequences, loss
        self._reference: list[Floats] = []

    def loss(self, types: Mapping[str, str], coder: Coder) -> float:
        """The loss with these tensors in these types, all others float."""
        coded = {name: coder(name, kind) for name, kind in types.items()}
        trial = with_replaced(self._model, coded)
        return self.summary(EmbeddedRuntime(trial, 0.0))["loss"]

    def summary(self, trial: Runtime) -> dict[str, float]:
        """The ``loss``, and the comparison that it is from."""
        comparison, reference = self._loss.compare(), EmbeddedRuntime(self._model, 0.0)
        for index, tokens in enumerate(self._sequences):
            if index == len(self._reference):
                self._reference.append(self._loss.answer(reference, tokens))
            comparison.add(self._reference[index], self._loss.answer(trial, tokens), tokens)
        summary = comparison.summary()
        return {**summary, "loss": self._loss.value(summary)}
