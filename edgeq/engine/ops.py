"""``edgeq.families.ops.Ops`` over NumPy arrays, for one sequence."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeq.engine.cache import KVCache
from edgeq.engine.weights import Floats, Weights
from edgeq.families.base import LabelScores
from edgeq.families.ops import Activation, Norm, Pooling
from edgeq.families.rope import Rope

Array = NDArray[Any]  # float32 activations; integers where ids and positions travel as values
# A weight's name, what it is about to be multiplied with, [T, columns], and which of a stack of experts it is.
Observer = Callable[[str, Floats, int], None]


class NumpyOps:
    """One forward pass over ``tokens``, which follow the tokens already in ``cache``."""

    def __init__(
        self,
        weights: Weights,
        tokens: Sequence[int],
        cache: KVCache | None,
        last_only: bool,
        observer: Observer | None = None,
        segments: Sequence[int] | None = None,
    ) -> None:
        self.weights = weights
        self.ids = np.asarray(tokens, np.int64)
        self.cache = cache
        self.last_only = last_only
        self.observer = observer
        self.segments = np.zeros_like(self.ids) if segments is None else np.asarray(segments, np.int64)
        self.start = cache.length if cache else 0
        self._angles: dict[Rope, tuple[Floats, Floats]] = {}

    def tokens(self) -> Array:
        return self.ids

    def positions(self) -> Array:
        return np.arange(self.start, self.start + len(self.ids))

    def token_types(self) -> Array:
        return self.segments

    def embed(self, stem: str, ids: Array) -> Array:
        return self.weights.picked(stem + ".weight", ids)

    def first_row(self, stem: str) -> Array:
        return self.weights.picked(stem + ".weight", np.zeros(1, np.int64))

    def split(self, x: Array, widths: Sequence[int]) -> Sequence[Array]:
        return np.split(x, np.cumsum(widths)[:-1], axis=-1)

    def norm(self, x: Array, stem: str, kind: Norm, eps: float) -> Array:
        if kind == "layer":
            x = x - x.mean(axis=-1, keepdims=True)
        root = np.sqrt(np.square(x).mean(axis=-1, keepdims=True) + np.float32(eps))
        y = x / root * self.weights.vector(stem + ".weight")
        return y + self.weights.vector(stem + ".bias") if self.weights.has(stem + ".bias") else y

    def linear(self, x: Array, stem: str) -> Array:
        if self.observer is not None:
            self.observer(stem + ".weight", x, 0)
        y = self.weights.product(x, stem + ".weight")
        if self.weights.has(stem + ".bias"):
            y += self.weights.vector(stem + ".bias")
        return y

    def wanted(self, x: Array) -> Array:
        return x[-1:] if self.last_only else x

    def settled(self, x: Array) -> Array:
        return self.wanted(x) if self.observer is None else x

    def heads(self, x: Array, n_heads: int) -> Array:
        return x.reshape(len(x), n_heads, -1)

    def rope(self, x: Array, rope: Rope) -> Array:
        if rope not in self._angles:
            frequencies = rope.frequencies(self._is_long(rope))
            angles = np.outer(self.positions(), frequencies).astype(np.float32)[:, None, :]
            magnitude = np.float32(rope.magnitude)
            self._angles[rope] = np.cos(angles) * magnitude, np.sin(angles) * magnitude
        cos, sin = self._angles[rope]
        low, high, rest = np.split(x, [rope.dim // 2, rope.dim], axis=-1)
        return np.concatenate([low * cos - high * sin, high * cos + low * sin, rest], axis=-1)

    def _is_long(self, rope: Rope) -> bool:
        """Whether the sequence, as far as it is foreseen, is longer than a LongRope's short divisors serve."""
        if rope.longrope is None:
            return False
        expected = self.cache.expected if self.cache else self.start + len(self.ids)
        return expected > rope.longrope.original

    def attention(
        self,
        q: Array,
        k: Array,
        v: Array,
        *,
        layer: int,
        scale: float,
        causal: bool,
        window: int = 0,
        cap: float = 0.0,
    ) -> Array:
        tokens, n_heads, width = q.shape
        kv_heads = k.shape[1]
        keys, values = k.transpose(1, 0, 2), v.transpose(1, 0, 2)
        if self.cache is not None and causal:
            keys, values = self.cache.append(layer, keys, values)
        first = (
            max(0, self.start - window + 1) if window and causal else 0
        )  # no query sees what stands before
        keys, values = keys[:, first:], values[:, first:]
        # The query heads of one key head become one longer matrix, so keys are never repeated.
        grouped = q.reshape(tokens, kv_heads, n_heads // kv_heads, width).transpose(1, 2, 0, 3)
        scores = grouped.reshape(kv_heads, -1, width) * np.float32(scale) @ keys.transpose(0, 2, 1)
        scores = scores.reshape(kv_heads, n_heads // kv_heads, tokens, -1)
        if cap:
            scores = np.tanh(scores / np.float32(cap)) * np.float32(cap)
        if causal and tokens > 1:
            last_seen = np.arange(self.start, self.start + tokens)[:, None]
            place = np.arange(first, first + scores.shape[-1])
            seen = place <= last_seen
            if window:
                seen &= place > last_seen - window
            scores = np.where(seen, scores, np.float32(-np.inf))
        elif window and not causal:
            place = np.arange(tokens)
            near = np.abs(place - place[:, None]) <= window // 2
            scores = np.where(near, scores, np.float32(-np.inf))
        weights = softmax(scores).reshape(kv_heads, -1, scores.shape[-1])
        mixed = (weights @ values).reshape(n_heads, tokens, width)
        return np.ascontiguousarray(mixed.transpose(1, 0, 2)).reshape(tokens, n_heads * width)

    def route(self, scores: Array, used: int, normalised: bool) -> Array:
        weights = softmax(scores)
        chosen = np.argpartition(-weights, used - 1, axis=-1)[:, :used]
        routed = np.zeros_like(weights)
        np.put_along_axis(routed, chosen, np.take_along_axis(weights, chosen, axis=-1), axis=-1)
        return routed / routed.sum(axis=-1, keepdims=True) if normalised else routed

    def experts(self, x: Array, blk: str, weights: Array, n_experts: int, kind: Activation) -> Array:
        out = np.zeros_like(x)
        for expert in range(n_experts):
            tokens = np.flatnonzero(weights[:, expert])
            if len(tokens):
                own = x[tokens]
                gate = self._expert(own, f"{blk}ffn_gate_exps.weight", expert)
                h = self.activation(gate, kind) * self._expert(own, f"{blk}ffn_up_exps.weight", expert)
                y = self._expert(h, f"{blk}ffn_down_exps.weight", expert)
                out[tokens] += weights[tokens, expert, None] * y
        return out

    def _expert(self, x: Array, name: str, expert: int) -> Array:
        if self.observer is not None:
            self.observer(name, x, expert)
        return self.weights.product(x, name, expert)

    def activation(self, x: Array, kind: Activation) -> Array:
        return _ACTIVATIONS[kind](x)

    def pool(self, x: Array, pooling: Pooling) -> Array:
        return POOLS[pooling](x)

    def unit(self, x: Array) -> Array:
        return x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), np.float32(1e-12))

    def scale(self, x: Array, factor: float) -> Array:
        return x * np.float32(factor)

    def add(self, a: Array, b: Array) -> Array:
        return a + b

    def mul(self, a: Array, b: Array) -> Array:
        return a * b


def softmax(x: Array) -> Array:
    """Softmax over the last axis, in float32."""
    x = np.exp(x - x.max(axis=-1, keepdims=True))
    return x / x.sum(axis=-1, keepdims=True)


def sigmoid(x: Array) -> Array:
    """The logistic function; of large numbers too."""
    return 0.5 * (1 + np.tanh(0.5 * x))


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


POOLS: dict[Pooling, Callable[[Array], Array]] = {
    "mean": lambda x: x.mean(axis=0, keepdims=True),
    "cls": lambda x: x[:1],
    "max": lambda x: x.max(axis=0, keepdims=True),
    "last": lambda x: x[-1:],
}
LABEL_SCORES: dict[LabelScores, Callable[[Array], Array]] = {
    "softmax": softmax,
    "sigmoid": sigmoid,
    "none": lambda x: x,
}
_ACTIVATIONS: dict[Activation, Callable[[Array], Array]] = {
    "silu": _silu,
    "gelu": _gelu,
    "gelu_tanh": _gelu_tanh,
    "relu": _relu,
    "tanh": np.tanh,
}
