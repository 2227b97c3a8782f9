"""``edgeq.families.ops.Ops`` over NumPy arrays, for one sequence."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeq.engine.cache import KVCache
from edgeq.engine.weights import Floats, Weights
from edgeq.families.ops import Activation, Norm
from edgeq.families.rope import Rope

Array = NDArray[Any]  # float32 activations; integers where ids and positions travel as values
Observer = Callable[
    [str, Floats], None
]  # a weight's name, and what it is about to be multiplied with, [T, columns]


class NumpyOps:
    """One forward pass over ``tokens``, which follow the tokens already in ``cache``."""

    def __init__(
        self,
        weights: Weights,
        tokens: Sequence[int],
        cache: KVCache | None,
        last_only: bool,
        observer: Observer | None = None,
    ) -> None:
        self.weights = weights
        self.ids = np.asarray(tokens, np.int64)
        self.cache = cache
        self.last_only = last_only
        self.observer = observer
        self.start = cache.length if cache else 0
        self._angles: dict[Rope, tuple[Floats, Floats]] = {}

    def tokens(self) -> Array:
        return self.ids

    def positions(self) -> Array:
        return np.arange(self.start, self.start + len(self.ids))

    def token_types(self) -> Array:
        return np.zeros_like(self.ids)

    def embed(self, stem: str, ids: Array) -> Array:
        return self.weights.picked(stem + ".weight", ids)

    def norm(self, x: Array, stem: str, kind: Norm, eps: float) -> Array:
        if kind == "layer":
            x = x - x.mean(axis=-1, keepdims=True)
        root = np.sqrt(np.square(x).mean(axis=-1, keepdims=True) + np.float32(eps))
        y = x / root * self.weights.vector(stem + ".weight")
        return y + self.weights.vector(stem + ".bias") if self.weights.has(stem + ".bias") else y

    def linear(self, x: Array, stem: str) -> Array:
        if self.observer is not None:
            self.observer(stem + ".weight", x)
        y = self.weights.product(x, stem + ".weight")
        if self.weights.has(stem + ".bias"):
            y += self.weights.vector(stem + ".bias")
        return y

    def wanted(self, x: Array) -> Array:
        return x[-1:] if self.last_only else x

    def heads(self, x: Array, n_heads: int) -> Array:
        return x.reshape(len(x), n_heads, -1)

    def rope(self, x: Array, rope: Rope) -> Array:
        if rope not in self._angles:
            angles = np.outer(self.positions(), rope.frequencies()).astype(np.float32)[:, None, :]
            self._angles[rope] = np.cos(angles), np.sin(angles)
        cos, sin = self._angles[rope]
        low, high = np.split(x, 2, axis=-1)
        return np.concatenate([low * cos - high * sin, high * cos + low * sin], axis=-1)

    def attention(self, q: Array, k: Array, v: Array, *, layer: int, scale: float, causal: bool) -> Array:
        tokens, n_heads, width = q.shape
        kv_heads = k.shape[1]
        keys, values = k.transpose(1, 0, 2), v.transpose(1, 0, 2)
        if self.cache is not None and causal:
            keys, values = self.cache.append(layer, keys, values)
        # The query heads of one key head become one longer matrix, so keys are never repeated.
        grouped = q.reshape(tokens, kv_heads, n_heads // kv_heads, width).transpose(1, 2, 0, 3)
        scores = grouped.reshape(kv_heads, -1, width) * np.float32(scale) @ keys.transpose(0, 2, 1)
        scores = scores.reshape(kv_heads, n_heads // kv_heads, tokens, -1)
        if causal and tokens > 1:
            last_seen = np.arange(self.start, self.start + tokens)[:, None]
            scores = np.where(np.arange(scores.shape[-1]) <= last_seen, scores, np.float32(-np.inf))
        weights = softmax(scores).reshape(kv_heads, -1, scores.shape[-1])
        mixed = (weights @ values).reshape(n_heads, tokens, width)
        return np.ascontiguousarray(mixed.transpose(1, 0, 2)).reshape(tokens, n_heads * width)

    def activation(self, x: Array, kind: Activation) -> Array:
        return _ACTIVATIONS[kind](x)

    def add(self, a: Array, b: Array) -> Array:
        return a + b

    def mul(self, a: Array, b: Array) -> Array:
        return a * b


def softmax(x: Array) -> Array:
    """Softmax over the last axis, in float32."""
    x = np.exp(x - x.max(axis=-1, keepdims=True))
    return x / x.sum(axis=-1, keepdims=True)


def _silu(x: Array) -> Array:
    with np.errstate(over="ignore"):  # exp(-x) may reach infinity, where the quotient is 0 as it should be
        return x / (1 + np.exp(-x))


def _gelu(x: Array) -> Array:
    from edgeq.kernels_cpu.activations import gelu

    return gelu(x)


def _gelu_tanh(x: Array) -> Array:
    inner = np.float32(math.sqrt(2 / math.pi)) * (x + np.float32(0.044715) * x**3)
    return np.float32(0.5) * x * (1 + np.tanh(inner))


def _relu(x: Array) -> Array:
    return np.maximum(x, 0)


_ACTIVATIONS: dict[Activation, Callable[[Array], Array]] = {
    "silu": _silu,
    "gelu": _gelu,
    "gelu_tanh": _gelu_tanh,
    "relu": _relu,
}
