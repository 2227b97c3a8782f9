"""One text in progress: of a longer version of it, only what is new is read."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edgeq.engine.decoders import Decoder


class Session:
    """A decoder that remembers what it was fed. It is a decoder itself."""

    def __init__(self, decoder: Decoder) -> None:
        self._decoder = decoder
        self.tokens: list[int] = []

    def feed(self, tokens: Sequence[int]) -> NDArray[np.float32]:
        """Read more tokens; logits ``[vocab]`` after the last."""
        self.tokens += tokens
        return self._decoder.feed(tokens)

    def reset(self) -> None:
        """Forget what was read."""
        self.tokens = []
        self._decoder.reset()

    def rest(self, tokens: Sequence[int]) -> list[int]:
        """What is to be fed, so that all of ``tokens`` were; at least one, since only feeding gives logits.

        Where they do not begin with what was fed before, that is forgotten.
        """
        start = len(self.tokens)
        if start >= len(tokens) or list(tokens[:start]) != self.tokens:
            self.reset()
            start = 0
        return list(tokens[start:])
