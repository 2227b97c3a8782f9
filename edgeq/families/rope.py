"""Rotary position embedding: its frequencies, and how it is scaled for long contexts."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeGuard

import numpy as np
from numpy.typing import NDArray

# The GGUF tensors that hold divisors of the frequencies.
FREQS, LONG, SHORT = "rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight"


@dataclass(frozen=True)
class Yarn:
    """YaRN: frequencies that turn fewer than ``beta_slow`` times in ``original`` tokens are divided by ``factor``,
    those that turn more than ``beta_fast`` times are kept, those between are blended."""

    factor: float
    original: int
    beta_fast: float = 32.0
    beta_slow: float = 1.0

    def blend(self, theta: float, dim: int) -> NDArray[np.float64]:
        """How much of each frequency is divided, 0 to 1, ``[dim / 2]``.

        Upstream: transformers ``_compute_yarn_parameters``, ggml ``ggml_rope_yarn_corr_dims``.
        """
        places = [
            dim * math.log(self.original / (turns * 2 * math.pi)) / (2 * math.log(theta))
            for turns in (self.beta_fast, self.beta_slow)
        ]
        low, high = max(math.floor(places[0]), 0), min(math.ceil(places[1]), dim - 1)
        ramp = (np.arange(dim // 2) - low) / max(high - low, 0.001)
        return np.clip(ramp, 0.0, 1.0)


@dataclass(frozen=True)
class LongRope:
    """Divisors of the frequencies: ``short`` for texts of up to ``original`` tokens, ``long`` for longer ones."""

    original: int
    short: tuple[float, ...]
    long: tuple[float, ...]


@dataclass(frozen=True)
class Rope:
    """Angles are ``position / linear_factor * theta**(-2i/dim) / factors[i]`` for i below dim / 2.

    Only the first ``dim`` values of a head turn. Sines and cosines are multiplied by ``magnitude``.
    """

    theta: float
    dim: int
    linear_factor: float = 1.0
    factors: tuple[float, ...] | None = None
    yarn: Yarn | None = None
    longrope: LongRope | None = None
    magnitude: float = 1.0

    def frequencies(self, long: bool = False) -> NDArray[np.float32]:
        """Radians per position, float32 ``[dim / 2]``; ``long`` picks a LongRope's divisors for long texts."""
        exponents = np.arange(0, self.dim, 2, dtype=np.float64) / self.dim
        frequencies = self.theta**-exponents / self.linear_factor
        if self.yarn is not None:
            blend = self.yarn.blend(self.theta, self.dim)
            frequencies = frequencies * (blend / self.yarn.factor + 1 - blend)
        divisors = self.factors
        if self.longrope is not None:
            divisors = self.longrope.long if long else self.longrope.short
        if divisors is not None:
            frequencies = frequencies / np.asarray(divisors, np.float64)
        return frequencies.astype(np.float32)

    def tensors(self) -> dict[str, tuple[float, ...]]:
        """The divisors as GGUF tensors."""
        found = {} if self.factors is None else {FREQS: self.factors}
        if self.longrope is not None:
            found |= {LONG: self.longrope.long, SHORT: self.longrope.short}
        return found

    @property
    def scaling(self) -> str:
        """What it is scaled by, in transformers' words; "default" for nothing."""
        if self.longrope is not None:
            return "longrope"
        if self.yarn is not None:
            return "yarn"
        if self.factors is not None:
            return "llama3"
        return "linear" if self.linear_factor != 1.0 else "default"


def yarn_magnitude(factor: float, scale: float = 1.0) -> float:
    """What YaRN multiplies sines and cosines by, unless a model says otherwise."""
    return 0.1 * scale * math.log(factor) + 1.0 if factor > 1 else 1.0


def is_positive(value: object) -> TypeGuard[int | float]:
    """Whether this is a number above 0 that a float64 holds; true and false are no numbers."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 1e308


def interleaved_order(n_rows: int, heads: int) -> NDArray[np.int64]:
    """Which Hugging Face row stands at each GGUF row of a Q or K weight.

    Hugging Face pairs row i of a head with row i + D/2, ggml's "norm" rope pairs neighbours, so the converter
    interleaves the halves of each head (upstream: LlamaModel.permute in the HF converter).
    """
    return np.arange(n_rows).reshape(heads, 2, n_rows // heads // 2).swapaxes(1, 2).reshape(-1)
