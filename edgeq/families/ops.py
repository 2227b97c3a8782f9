"""The small set of operations in which every family's forward pass is written.

Three readers implement it: the embedded engine computes with arrays, the ONNX builder emits nodes. (The GGUF
converter reads a family's names and hyper-parameters only.) Shapes below leave out a leading batch axis, which
the ONNX builder has and the engine has not: ``T`` tokens, ``C`` hidden width, ``H`` heads of ``D`` values.

Weights are named as in GGUF. A ``stem`` is a name without its last part: ``linear(x, "blk.0.attn_q")`` uses
``blk.0.attn_q.weight``, and ``blk.0.attn_q.bias`` where the model has one.
"""

from __future__ import annotations

from typing import Literal, Protocol, TypeVar

from edgeq.families.rope import Rope

V = TypeVar("V")
Activation = Literal["silu", "gelu", "gelu_tanh", "relu"]
Norm = Literal["rms", "layer"]


class Ops(Protocol[V]):
    """What a reader of a family's forward must offer. ``V`` is its value: an array, or a graph edge."""

    def tokens(self) -> V:
        """Token ids, integers ``[T]``."""

    def positions(self) -> V:
        """Position of each token, integers ``[T]``."""

    def token_types(self) -> V:
        """Segment of each token, integers ``[T]``."""

    def embed(self, stem: str, ids: V) -> V:
        """Rows ``ids`` of the table ``stem.weight``: ``[T, C]``."""

    def norm(self, x: V, stem: str, kind: Norm, eps: float) -> V:
        """RMS or layer normalisation over the last axis, scaled by ``stem.weight`` (plus ``stem.bias``)."""

    def linear(self, x: V, stem: str) -> V:
        """``x @ weight.T + bias``: ``[T, in] -> [T, out]``."""

    def heads(self, x: V, n_heads: int) -> V:
        """Split the last axis into heads: ``[T, H·D] -> [T, H, D]``."""

    def rope(self, x: V, rope: Rope) -> V:
        """Rotate ``[T, H, D]`` by the tokens' positions; the two halves of D are the pairs (Hugging Face order)."""

    def attention(self, q: V, k: V, v: V, *, layer: int, scale: float, causal: bool) -> V:
        """Scaled dot-product attention: q ``[T, H, D]``, k and v ``[T, KV, D]`` -> ``[T, H·D]``.

        H is a multiple of KV: query head h reads key head ``h // (H / KV)``. Keys and values of ``layer`` are
        kept in the cache where the model is causal.
        """

    def activation(self, x: V, kind: Activation) -> V:
        """An elementwise activation."""

    def wanted(self, x: V) -> V:
        """Keep the tokens whose output is wanted: all, or only the last while generating. Stands before the head."""

    def add(self, a: V, b: V) -> V:
        """Elementwise sum."""

    def mul(self, a: V, b: V) -> V:
        """Elementwise product."""
