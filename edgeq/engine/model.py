"""A model in the embedded engine: opened from a GGUF file or a checkpoint directory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgeq.engine.cache import KVCache
from edgeq.engine.ops import LABEL_SCORES, NumpyOps, Observer
from edgeq.engine.weights import CheckpointWeights, GGUFWeights, Weights
from edgeq.errors import InputError
from edgeq.families import Family, HyperParameters
from edgeq.families.sentence import sentence_vector
from edgeq.formats.gguf.reader import GGUFFile
from edgeq.formats.gguf.split import open_gguf
from edgeq.gguf_family import read_gguf

if TYPE_CHECKING:
    from edgeq.source import SourceModel

Floats = NDArray[np.float32]

_KEEP_BELOW = 300_000_000  # parameters up to which a float checkpoint is held in memory as float32
_CHUNK = 256  # tokens of one forward pass while a long text is read
_OBSERVED = 512  # the same while it is observed: a streamed model is read again for every pass


class Model:
    """A family, its hyper-parameters and its weights.

    Decoders give ``logits``, encoders ``embed`` and, where they have a classifier, ``classify``.
    """

    def __init__(self, family: Family, hp: HyperParameters, weights: Weights, name: str) -> None:
        self.family = family
        self.hp = hp
        self.weights = weights
        self.name = name

    def new_cache(self, expected: int = 0) -> KVCache:
        """An empty key-value cache for one sequence, which may get ``expected`` tokens."""
        return KVCache(self.hp.n_layers, expected)

    def logits(self, tokens: Sequence[int], cache: KVCache | None = None, last_only: bool = False) -> Floats:
        """Logits ``[T, vocab]`` (``[1, vocab]`` with ``last_only``) after each token; the cache is moved on.

        Raises InputError for a token outside the vocabulary or a model without logits.
        """
        if not self.family.generates(self.hp):
            raise InputError(f"{self.name}: is an encoder; it embeds text and generates none")
        return self._forward(tokens, self.new_cache() if cache is None else cache, last_only)

    def prefill(self, tokens: Sequence[int], cache: KVCache) -> Floats:
        """Read a prompt of any length in chunks; logits ``[vocab]`` after its last token."""
        cache.begin(len(tokens))
        for start in range(
            0, max(1, len(tokens)), _CHUNK
        ):  # at least once, so that no tokens are an InputError
            last = self.logits(tokens[start : start + _CHUNK], cache, last_only=True)
        return last[-1]

    def hidden(self, tokens: Sequence[int]) -> Floats:
        """The last hidden state of an encoder, or of a decoder that embeds, ``[T, C]``."""
        if self.family.generates(self.hp):
            raise InputError(f"{self.name}: is a decoder; it has logits and no sentence embedding")
        if self.family.kind == "encoder":
            return self._forward(tokens, None, False, answer=self.family.hidden)
        cache = self.new_cache(len(tokens))
        chunks = [tokens[start : start + _CHUNK] for start in range(0, max(1, len(tokens)), _CHUNK)]
        return np.concatenate(
            [self._forward(chunk, cache, False, answer=self.family.hidden) for chunk in chunks]
        )

    def embed(self, tokens: Sequence[int]) -> Floats:
        """One vector ``[C]``, pooled as the model says, by the mean where it says nothing.

        It has unit length, unless the model comes from sentence-transformers and says otherwise.
        """
        vector: Floats = sentence_vector(
            NumpyOps(self.weights, tokens, None, False), self.hp, self.hidden(tokens)
        )[0]
        return vector

    def class_logits(self, tokens: Sequence[int], segments: Sequence[int] | None = None) -> Floats:
        """Logits of the labels ``hp.labels``: ``[1, labels]`` of a sequence, ``[T, labels]`` of tokens.

        ``segments`` says of each token which text of a pair it is of, 0 or 1; None is a single text. Raises InputError
        for a model without a classifier, and for segments that it does not have.
        """
        if self.hp.head == "none":
            raise InputError(f"{self.name}: has no classifier")
        if segments is not None and not self._has_segments(tokens, segments):
            raise InputError(
                f"{self.name}: segments must say 0 to {self.hp.n_token_types - 1} of each of {len(tokens)} tokens"
            )
        return self._forward(tokens, None, False, segments=segments)

    def _has_segments(self, tokens: Sequence[int], segments: Sequence[int]) -> bool:
        types = max(1, self.hp.n_token_types)
        return len(segments) == len(tokens) and all(0 <= one < types for one in segments)

    def classify(
        self, tokens: Sequence[int], segments: Sequence[int] | None = None
    ) -> list[dict[str, float]]:
        """Probabilities by label, of the sequence (one) or of each token; as ``class_logits`` otherwise.

        Of a regression, which has none, the values themselves.
        """
        logits = self.class_logits(tokens, segments)
        scores = LABEL_SCORES[self.hp.label_scores](logits)
        return [dict(zip(self.hp.labels, map(float, row), strict=True)) for row in scores]

    def observe(self, tokens: Sequence[int], observer: Observer, head: bool = False) -> None:
        """Read one sequence, a decoder's of any length, and show ``observer`` what each linear layer reads.

        A decoder's head reads the last token of each pass only, unless ``head`` is given. What embeds or classifies is
        read whole.
        """
        if not self.family.generates(self.hp):
            self._forward(tokens, None, False, observer, self._vector if self.hp.head == "none" else None)
            return
        cache = self.new_cache(len(tokens))
        for start in range(0, max(1, len(tokens)), _OBSERVED):
            self._forward(tokens[start : start + _OBSERVED], cache, not head, observer)

    def _vector(self, ops: NumpyOps, hp: HyperParameters) -> Floats:
        vector: Floats = sentence_vector(ops, hp, self.family.hidden(ops, hp))
        return vector

    def _forward(
        self,
        tokens: Sequence[int],
        cache: KVCache | None,
        last_only: bool,
        observer: Observer | None = None,
        answer: Callable[[NumpyOps, HyperParameters], Floats] | None = None,
        segments: Sequence[int] | None = None,
    ) -> Floats:
        """What ``answer`` makes of a pass over the tokens; None is the family's forward."""
        check_tokens(tokens, self.hp, self.name)
        end = len(tokens) + (cache.length if cache else 0)
        table = self.family.kind == "encoder" or getattr(self.family, "positions", "") == "table"
        if table and end > self.hp.context:
            raise InputError(f"{self.name}: {end} tokens are more than its {self.hp.context} positions")
        if cache is not None:
            cache.begin(len(tokens))
        ops = NumpyOps(self.weights, tokens, cache, last_only, observer, segments)
        out = (answer or self.family.forward)(ops, self.hp)
        if cache is not None:
            cache.advance(len(tokens))
        return out


def from_source(source: SourceModel, keep: bool | None = None) -> Model:
    """The float model of an opened checkpoint; ``keep`` None holds small models in memory and streams large ones."""
    keep = source.parameters() <= _KEEP_BELOW if keep is None else keep
    return Model(source.family, source.hp, CheckpointWeights(source, keep), source.path.name)


def check_tokens(tokens: Sequence[int], hp: HyperParameters, name: str) -> None:
    """Raises InputError where there are none, or one is outside the vocabulary."""
    if not len(tokens):
        raise InputError(f"{name}: no tokens to read")
    unknown = next((token for token in tokens if not 0 <= token < hp.vocab), None)
    if unknown is not None:
        raise InputError(f"{name}: token {unknown} is outside the vocabulary of {hp.vocab}")


def from_gguf(file: GGUFFile) -> Model:
    """The model of an opened GGUF file; raises EdgeqError for a missing or misshapen tensor."""
    family, hp, specs = read_gguf(file)
    return Model(family, hp, GGUFWeights(file, specs), file.path.name)


def open_model(path: str | Path) -> Model:
    """Open a GGUF file or a checkpoint directory in the engine; raises EdgeqError."""
    path = Path(path)
    if not path.is_dir():
        return from_gguf(open_gguf(path))
    from edgeq.source import SourceModel  # a GGUF file is run without what checkpoints need

    return from_source(SourceModel.open(path))
