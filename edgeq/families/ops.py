"""The small set of operations in which every family's forward pass is written.

Three readers implement it: the embedded engine computes with arrays, the ONNX builder emits nodes. (The GGUF
converter reads a family's names and hyper-parameters only.) Shapes below leave out a leading batch axis, which
the ONNX builder has and the engine has not: ``T`` tokens, ``C`` hidden width, ``H`` heads of ``D`` values.

Weights are named as in GGUF. A ``stem`` is a name without its last part: ``linear(x, "blk.0.attn_q")`` uses
``blk.0.attn_q.weight``, and ``blk.0.attn_q.bias`` where the model has one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol, TypeVar

from edgeq.families.rope import Rope

V = TypeVar("V")
Activation = Literal["silu", "gelu", "gelu_tanh", "relu", "tanh"]
Norm = Literal["rms", "layer"]
Pooling = Literal["mean", "cls", "max", "last"]


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

    def first_row(self, stem: str) -> V:
        """Row 0 of the table ``stem.weight``: ``[1, C]``."""

    def norm(self, x: V, stem: str, kind: Norm, eps: float) -> V:
        """RMS or layer normalisation over the last axis, scaled by ``stem.weight`` (plus ``stem.bias`` if any)."""

    def linear(self, x: V, stem: str) -> V:
        """``x @ weight.T + bias``: ``[T, in] -> [T, out]``."""

    def heads(self, x: V, n_heads: int) -> V:
        """Split the last axis into heads: ``[T, H·D] -> [T, H, D]``."""

    def split(self, x: V, widths: Sequence[int]) -> Sequence[V]:
        """Cut the last axis into parts of these widths."""

    def rope(self, x: V, rope: Rope) -> V:
        """Rotate the first ``rope.dim`` values of each head of ``[T, H, D]`` by the tokens' positions.

        Their two halves are the pairs (Hugging Face order).
        """

    def attention(
        self, q: V, k: V, v: V, *, layer: int, scale: float, causal: bool, window: int = 0, cap: float = 0.0
    ) -> V:
        """Scaled dot-product attention: q ``[T, H, D]``, k and v ``[T, KV, D]`` -> ``[T, H·D]``.

        H is a multiple of KV: query head h reads key head ``h // (H / KV)``. Keys and values of ``layer`` are
        kept in the cache where the model is causal. ``window`` is how many tokens a query sees, itself the last,
        0 for all; where not ``causal``, it sees ``window // 2`` on either side of itself. Scores become
        ``cap · tanh(score / cap)`` where ``cap`` is not 0.
        """

    def route(self, scores: V, used: int, normalised: bool) -> V:
        """Weights of the experts ``[T, E]``: of their softmax the ``used`` largest, the others 0.

        Where ``normalised``, they add up to 1.
        """

    def experts(self, x: V, blk: str, weights: V, n_experts: int, kind: Activation) -> V:
        """The weighted sum of gated feed-forwards: ``[T, C] -> [T, C]``.

        Their stacked matrices are ``{blk}ffn_gate_exps.weight``, ``ffn_up_exps`` and ``ffn_down_exps``.
        """

    def activation(self, x: V, kind: Activation) -> V:
        """An elementwise activation."""

    def pool(self, x: V, pooling: Pooling) -> V:
        """One vector of the tokens that are no padding, ``[T, C] -> [1, C]``.

        It is their mean, the first, the largest of each channel, or the last.
        """

    def unit(self, x: V) -> V:
        """``[1, C]`` brought to unit length."""

    def wanted(self, x: V) -> V:
        """Keep the tokens whose output is wanted: all, or only the last while generating. Twice is as good as once."""

    def settled(self, x: V) -> V:
        """As ``wanted``, where the last layer's attention is done; all tokens where somebody observes the layers."""

    def add(self, a: V, b: V) -> V:
        """Elementwise sum."""

    def mul(self, a: V, b: V) -> V:
        """Elementwise product."""

    def scale(self, x: V, factor: float) -> V:
        """``x`` times a number."""
