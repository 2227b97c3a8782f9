"""What the dialects share: heads side by side in the last axis, where the fused operators want them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, TypeVar

import onnx_ir as ir

from edgeq.convert.onnx_ops import OnnxOps
from edgeq.families.ops import Norm
from edgeq.families.rope import Rope
from edgeq.formats.onnx.builder import GraphBuilder
from edgeq.formats.onnx.passes.blocked_weights import Form
from edgeq.source import ModelSource


class DecoderOps(OnnxOps, ABC):
    """``OnnxOps`` in which a norm and an attention are one node each.

    A value of heads is ``[batch, tokens, heads, width]``. What an operator reads with its heads joined,
    ``[batch, tokens, heads · width]``, is mostly there already, and then nothing cuts it (``GraphBuilder.model`` drops
    what nobody reads).
    """

    form: ClassVar[Form] = "standard"  # of blocked weights
    angle_axes: ClassVar[tuple[int, ...]] = (2,)

    def __init__(self, builder: GraphBuilder, source: ModelSource) -> None:
        super().__init__(builder, source)
        self._n_heads: dict[ir.Value, int] = {}
        self._joined: dict[ir.Value, ir.Value] = {}
        self._once: dict[str, ir.Value] = {}

    @classmethod
    def finish(cls, model: ir.Model) -> None:
        """What is easier done to the whole graph; here nothing."""

    @classmethod
    def quantized(cls, model: ir.Model) -> None:
        """What is done to the whole graph once its weights are quantized; here nothing."""

    def once(self, name: str, emit: Callable[[], ir.Value]) -> ir.Value:
        """What all layers share, emitted where the first one asks."""
        if name not in self._once:
            self._once[name] = emit()
        return self._once[name]

    def heads(self, x: ir.Value, n_heads: int) -> ir.Value:
        return self._cut(x, n_heads)

    def _cut(self, x: ir.Value, n_heads: int) -> ir.Value:
        """Joined heads as a value of heads."""
        y = self.b.op("Reshape", x, self.b.constant([0, 0, n_heads, self.hp.head_dim]))
        self._n_heads[y], self._joined[y] = n_heads, x
        return y

    def joined(self, x: ir.Value) -> ir.Value:
        """The heads side by side."""
        if x not in self._joined:
            width = self._n_heads[x] * self.hp.head_dim
            self._joined[x] = self.b.op("Reshape", x, self.b.constant([0, 0, width]))
        return self._joined[x]

    def by_head(self, x: ir.Value) -> ir.Value:
        """``[batch, heads, tokens, width]``, as the plain operators of ``OnnxOps`` have it."""
        return self.b.op("Transpose", x, perm=[0, 2, 1, 3])

    def norm(self, x: ir.Value, stem: str, kind: Norm, eps: float) -> ir.Value:
        if kind == "layer":
            return super().norm(x, stem, kind, eps)
        y = self.rms_norm(x, self._weight(stem + ".weight"), eps, f"{stem}/Norm")
        if x in self._n_heads:
            self._n_heads[y] = self._n_heads[x]
        return y

    def rope(self, x: ir.Value, rope: Rope) -> ir.Value:
        n_heads = self._n_heads[x]
        return self._cut(self.rotated(self.joined(x), rope, n_heads), n_heads)

    @abstractmethod
    def rms_norm(self, x: ir.Value, scale: ir.Value, eps: float, name: str) -> ir.Value:
        """The RMS norm over the last axis."""

    @abstractmethod
    def rotated(self, x: ir.Value, rope: Rope, n_heads: int) -> ir.Value:
        """Joined heads, turned by the tokens' positions."""


Dialect = type[DecoderOps]
DIALECTS: dict[str, Dialect] = {}
D = TypeVar("D", bound=Dialect)


def dialect(name: str) -> Callable[[D], D]:
    """Register a dialect."""

    def register(ops: D) -> D:
        DIALECTS[name] = ops
        return ops

    return register


def partial_rope(rope: Rope, head_dim: int) -> dict[str, Any]:
    """The attribute that the rotating operators want where only a part of each head turns."""
    return {} if rope.dim == head_dim else {"rotary_embedding_dim": rope.dim}
