"""Choosing the next token: greedy, or by temperature, top-k and top-p."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from edgeq.engine.ops import softmax
from edgeq.errors import UsageError


@dataclass
class Sampler:
    """``temperature`` 0 is greedy, ``top_k`` 0 and ``top_p`` 1 leave all tokens in; a seed fixes the text."""

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0
    _random: np.random.Generator = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if self.temperature < 0 or self.top_k < 0 or not 0 < self.top_p <= 1:
            raise UsageError("temperature and top-k must not be negative, top-p must be in (0, 1]")
        self._random = np.random.default_rng(self.seed)

    def pick(self, logits: NDArray[np.float32]) -> int:
        """The next token from logits ``[vocab]``."""
        if self.temperature == 0:
            return int(logits.argmax())
        order = np.argsort(-logits, kind="stable")
        if self.top_k:
            order = order[: self.top_k]
        weights = softmax(logits[order].astype(np.float64) / self.temperature)
        # The smallest set whose probability reaches top_p: a token stays while those before it fall short.
        kept = np.cumsum(weights) - weights < self.top_p
        weights = weights[kept] / weights[kept].sum()
        return int(order[kept][self._random.choice(len(weights), p=weights)])
