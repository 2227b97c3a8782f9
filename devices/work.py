"""What running a model asks of a device: weights to read and multiply, a cache to keep. No device, no file format."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgeq.formats.gguf.types import TENSOR_TYPES_BY_NAME


@dataclass(frozen=True)
class Product:
    """Weights of one type that a token is multiplied with; it reads ``share`` of them (experts used of all).

    ``rows`` is how many sums of products they make, 0 where nobody counts them. ``last_only`` says that of a prompt
    only the last token is multiplied with them: the matrix of the logits, and the last layer's feed-forward part, which
    reads no other token's values (llama.cpp: ``build_inp_out_ids`` of its graphs; edgeq: ``Ops.wanted``).
    """

    type_name: str
    weights: int
    share: float = 1.0
    rows: int = 0
    last_only: bool = False

    @property
    def nbytes(self) -> float:
        """All of their bytes."""
        kind = TENSOR_TYPES_BY_NAME[self.type_name]
        return self.weights / kind.block_values * kind.block_bytes


@dataclass(frozen=True)
class CachedLayers:
    """Layers that keep so many values (keys and values together) of each position; of the last ``window`` if not 0."""

    layers: int
    values: int
    window: int = 0


@dataclass(frozen=True)
class Work:
    """A model with its types chosen: ``attention`` is query heads × head width; what is not cached is no decoder."""

    products: Sequence[Product]
    layers: int
    hidden: int
    vocab: int
    attention: int
    cached: Sequence[CachedLayers] = ()
    cache_bytes: float = 2.0  # of a cached value: float16

    def cache_values(self, positions: int, extra: int = 0) -> int:
        """Values kept after so many positions; a window is kept with ``extra`` more, as runtimes do."""
        return sum(
            group.layers
            * group.values
            * (min(positions, group.window + extra) if group.window else positions)
            for group in self.cached
        )
