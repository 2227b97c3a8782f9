"""The key-value cache of one sequence."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


class KVCache:
    """Keys and values per layer, float32 ``[KV, capacity, D]``, doubled when full.

    ``expected`` is how long the sequence may become, as far as that is known when it begins: rotary embeddings with
    divisors for short and for long texts cannot change them half way.
    """

    def __init__(self, n_layers: int, expected: int = 0) -> None:
        self.length = 0
        self.expected = expected
        self._keys: list[Floats | None] = [None] * n_layers
        self._values: list[Floats | None] = [None] * n_layers

    def append(self, layer: int, keys: Floats, values: Floats) -> tuple[Floats, Floats]:
        """Add ``[KV, T, D]`` after the first ``length`` tokens; returns views of all keys and values up to there."""
        end = self.length + keys.shape[1]
        self._keys[layer] = all_keys = _stored(self._keys[layer], keys, self.length)
        self._values[layer] = all_values = _stored(self._values[layer], values, self.length)
        return all_keys[:, :end], all_values[:, :end]

    def begin(self, tokens: int) -> None:
        """Say how many tokens the first text has, before it is read."""
        if not self.length:
            self.expected = max(self.expected, tokens)

    def advance(self, tokens: int) -> None:
        """Count the tokens of a finished forward pass."""
        self.length += tokens


def _stored(old: Floats | None, new: Floats, at: int) -> Floats:
    heads, tokens, width = new.shape
    if old is None or at + tokens > old.shape[1]:
        grown = np.zeros((heads, max(64, 2 * (at + tokens)), width), np.float32)
        if old is not None:
            grown[:, :at] = old[:, :at]
        old = grown
    old[:, at : at + tokens] = new
    return old
