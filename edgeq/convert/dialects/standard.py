"""The dialect of ONNX itself, opset 23: RMSNormalization, RotaryEmbedding, Attention, Gelu."""

from __future__ import annotations

import onnx_ir as ir

from edgeq.convert.dialects.base import DecoderOps, dialect, partial_rope
from edgeq.families.ops import Activation
from edgeq.families.rope import Rope


@dialect("standard")
class StandardOps(DecoderOps):
    """Angles and masks are computed in the graph: any position, left padding and windows are free.

    Attention gets no ``is_causal``: opset 23 says nothing of where the queries stand after the past. It gets no
    ``softcap`` either: ONNX Runtime 1.23 and 1.24 capped the mask with the scores (Gemma 2's logits were off by two
    thirds of their range; 1.31 is right), so capped scores are written in plain operators.
    """

    def rms_norm(self, x: ir.Value, scale: ir.Value, eps: float, name: str) -> ir.Value:
        return self.b.op("RMSNormalization", x, scale, axis=-1, epsilon=eps, name=name)

    def rotated(self, x: ir.Value, rope: Rope, n_heads: int) -> ir.Value:
        cos, sin = self._rope_angles(rope)
        return self.b.op(
            "RotaryEmbedding", x, cos, sin, num_heads=n_heads, **partial_rope(rope, self.hp.head_dim)
        )

    def attention(
        self,
        q: ir.Value,
        k: ir.Value,
        v: ir.Value,
        *,
        layer: int,
        scale: float,
        causal: bool,
        window: int = 0,
        cap: float = 0.0,
    ) -> ir.Value:
        if cap:
            q, k, v = (self.by_head(x) for x in (q, k, v))
            return super().attention(q, k, v, layer=layer, scale=scale, causal=causal, window=window, cap=cap)
        y, key, value = self.b.op_many(
            "Attention",
            *(self.joined(x) for x in (q, k, v)),
            self._mask_bias(4, window),
            *self.past[layer],
            outputs=3,
            name=f"blk.{layer}.attn",
            q_num_heads=self.hp.n_heads,
            kv_num_heads=self.hp.n_kv_heads,
            scale=scale,
        )
        self.present.append((key, value))
        return y

    def activation(self, x: ir.Value, kind: Activation) -> ir.Value:
        if kind in ("gelu", "gelu_tanh"):
            return self.b.op("Gelu", x, approximate="tanh" if kind == "gelu_tanh" else "none")
        return super().activation(x, kind)
