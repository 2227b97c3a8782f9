"""Choosing the next token: greedy, or by temperature and the sets that top-k, top-p and min-p leave."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from edgeq.engine.ops import softmax
from edgeq.errors import UsageError

# Below this the likeliest token is certain in float64, and the division would overflow.
_COLDEST = 1e-6


@dataclass
class Sampler:
    """``temperature`` 0 is greedy; ``top_k`` 0, ``top_p`` 1 and ``min_p`` 0 leave all tokens in; a seed fixes the text.

    They apply in transformers' order: repetition penalty, temperature, top-k, top-p, min-p. The penalty (CTRL,
    Keskar et al. 2019) divides positive logits of tokens seen before, and multiplies negative ones; 1 is none.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    _random: np.random.Generator = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < np.inf or self.top_k < 0 or not 0 < self.top_p <= 1:
            raise UsageError("temperature and top-k must not be negative, top-p must be in (0, 1]")
        if not 0 <= self.min_p <= 1 or not 0 < self.repetition_penalty < np.inf:
            raise UsageError("min-p must be in [0, 1], the repetition penalty positive")
        self._random = np.random.default_rng(self.seed)

    def pick(self, logits: NDArray[np.float32], seen: Sequence[int] = ()) -> int:
        """The next token from logits ``[vocab]`` after the tokens ``seen``."""
        if self.repetition_penalty != 1 and len(seen):
            logits = self._penalised(logits, seen)
        if self.temperature < _COLDEST:
            return int(logits.argmax())
        order = np.argsort(-logits, kind="stable")
        if self.top_k:
            order = order[: self.top_k]
        weights = softmax(logits[order].astype(np.float64) / self.temperature)
        # The smallest set whose probability reaches top_p: a token stays while those before it fall short.
        kept = np.cumsum(weights) - weights < self.top_p
        kept &= weights >= self.min_p * weights[0]
        weights = weights[kept] / weights[kept].sum()
        return int(order[kept][self._random.choice(len(weights), p=weights)])

    def _penalised(self, logits: NDArray[np.float32], seen: Sequence[int]) -> NDArray[np.float32]:
        tokens = np.unique(np.asarray(seen, np.int64))
        own = logits[tokens]
        penalty = np.float32(self.repetition_penalty)
        changed = logits.copy()
        changed[tokens] = np.where(own > 0, own / penalty, own * penalty)
        return changed
