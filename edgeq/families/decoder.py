"""A decoder described by data: which tensors a layer has says what it computes.

A family names the parts of its layers (``layer``: GGUF role → Hugging Face name). A part that is not named is not
there: norms before, after or around, norms of queries and keys, fused or separate projections, a gated or plain
feed-forward. The numbers are in ``HyperParameters``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar, Literal

from edgeq.families.base import HyperParameters, TensorSpec
from edgeq.families.decoder_keys import DecoderKeys
from edgeq.families.ops import Ops, V
from edgeq.families.sentence import dense_tensors

# Llama's layer, which most families change in a few places only.
ATTENTION = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
}
QK_NORM_ATTENTION = ATTENTION | {"attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm"}
FEED_FORWARD = {"ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj"}
LAYER = {
    "attn_norm": "input_layernorm",
    **ATTENTION,
    "ffn_norm": "post_attention_layernorm",
    **FEED_FORWARD,
}
OUTER = {"token_embd": "embed_tokens", "output_norm": "norm", "output": "lm_head"}


class Decoder(DecoderKeys):
    """A decoder of text. Without changes it is llama's graph."""

    kind: ClassVar[Literal["decoder", "encoder"]] = "decoder"
    source_prefixes: ClassVar[tuple[str, ...]] = ("model.", "")
    layer: ClassVar[Mapping[str, str]] = LAYER
    outer: ClassVar[Mapping[str, str]] = OUTER
    block: ClassVar[str] = "layers.{}."  # what stands before a layer's names
    biased: ClassVar[frozenset[str]] = frozenset()  # roles that must have a bias; others may
    transposed: ClassVar[bool] = False  # the layers' matrices are stored [in, out]
    interleaved: ClassVar[bool] = False  # GGUF holds queries and keys for ggml's "norm" rope
    whole_qk_norm: ClassVar[bool] = False  # norms of queries and keys span all heads, not each
    gated: ClassVar[bool] = True
    norm_shift: ClassVar[float] = 0.0  # what the family adds to the weights of its norms

    def parts(self, hp: HyperParameters) -> dict[str, str]:
        """The roles of a layer's tensors and their Hugging Face names, in file order."""
        if not hp.n_experts:
            return dict(self.layer)
        return {r: name for r, name in self.layer.items() if r not in FEED_FORWARD} | dict(self.experts)

    # --- tensors ------------------------------------------------------------------------------------------------
    def tensors(self, hp: HyperParameters) -> Iterator[TensorSpec]:
        for role in ("token_embd", "position_embd"):
            if role in self.outer:
                rows = hp.vocab if role == "token_embd" else hp.context
                yield TensorSpec(f"{role}.weight", f"{self.outer[role]}.weight", (rows, hp.hidden))
        for i in range(hp.n_layers):
            for role, source in self.parts(hp).items():
                yield from self._layer_tensors(hp, role, f"blk.{i}.{role}", self.block.format(i) + source)
        yield from self._norm("output_norm", self.outer["output_norm"], hp.hidden)
        if not hp.tied:
            source, embeds = f"{self.outer['output']}.weight", hp.pooling != "none"
            yield TensorSpec("output.weight", source, (hp.vocab, hp.hidden), optional=embeds)
        yield from dense_tensors(hp)

    def _layer_tensors(self, hp: HyperParameters, role: str, name: str, source: str) -> Iterator[TensorSpec]:
        shape = self._shape(hp, role)
        if len(shape) == 1:
            yield from self._norm(name, source, shape[0])
        elif len(shape) == 3:
            yield TensorSpec(name + ".weight", source + ".weight", shape, stacked=True)
        else:
            heads = {"attn_q": hp.n_heads, "attn_k": hp.n_kv_heads}.get(role, 0) if self.interleaved else 0
            yield TensorSpec(
                name + ".weight", source + ".weight", shape, rope_heads=heads, transposed=self.transposed
            )
            if role != "ffn_gate_inp":
                missing = role not in self.biased
                yield TensorSpec(
                    name + ".bias", source + ".bias", shape[:1], optional=missing, rope_heads=heads
                )

    def _norm(self, name: str, source: str, width: int) -> Iterator[TensorSpec]:
        yield TensorSpec(name + ".weight", source + ".weight", (width,), shift=self.norm_shift)
        if self.norm == "layer":
            yield TensorSpec(name + ".bias", source + ".bias", (width,))

    def _shape(self, hp: HyperParameters, role: str) -> tuple[int, ...]:
        queries, keys = hp.n_heads * hp.head_dim, hp.n_kv_heads * hp.head_dim
        fused = "ffn_gate" not in self.layer and self.gated
        experts, width = hp.n_experts, hp.expert_ffn
        shapes: dict[str, tuple[int, ...]] = {
            "attn_q": (queries, hp.hidden),
            "attn_k": (keys, hp.hidden),
            "attn_v": (keys, hp.hidden),
            "attn_qkv": (queries + 2 * keys, hp.hidden),
            "attn_output": (hp.hidden, queries),
            "attn_q_norm": (queries if self.whole_qk_norm else hp.head_dim,),
            "attn_k_norm": (keys if self.whole_qk_norm else hp.head_dim,),
            "ffn_gate": (hp.ffn, hp.hidden),
            "ffn_up": (2 * hp.ffn if fused else hp.ffn, hp.hidden),
            "ffn_down": (hp.hidden, hp.ffn),
            "ffn_gate_inp": (experts, hp.hidden),
            "ffn_gate_exps": (experts, width, hp.hidden),
            "ffn_up_exps": (experts, width, hp.hidden),
            "ffn_down_exps": (experts, hp.hidden, width),
        }
        return shapes.get(role, (hp.hidden,))

    # --- forward ------------------------------------------------------------------------------------------------
    def forward(self, ops: Ops[V], hp: HyperParameters) -> V:
        return self.logits(ops, hp, self._layers(ops, hp))

    def hidden(self, ops: Ops[V], hp: HyperParameters) -> V:
        return ops.norm(self._layers(ops, hp), "output_norm", self.norm, hp.norm_eps)

    def _layers(self, ops: Ops[V], hp: HyperParameters) -> V:
        x = self.embedded(ops, hp)
        for i in range(hp.n_layers):
            x = self.layer_output(ops, hp, i, x)
        return x

    def embedded(self, ops: Ops[V], hp: HyperParameters) -> V:
        """What the first layer reads: ``[T, C]``."""
        x = ops.embed("token_embd", ops.tokens())
        if self.positions == "table":
            x = ops.add(x, ops.embed("position_embd", ops.positions()))
        return _scaled(ops, x, hp.embed_scale)

    def layer_output(self, ops: Ops[V], hp: HyperParameters, i: int, x: V) -> V:
        """What layer ``i`` makes of ``x``, ``[T, C] -> [T, C]``; of the last, only for the wanted tokens."""
        h = self._attention(ops, hp, i, self._normed(ops, hp, x, f"blk.{i}.", "attn_norm"))
        h = self._normed(ops, hp, h, f"blk.{i}.", "post_attention_norm")
        x = ops.add(_ending(ops, hp, i, x), _scaled(ops, h, hp.residual_scale))
        h = self._feed_forward(ops, hp, i, self._normed(ops, hp, x, f"blk.{i}.", "ffn_norm"))
        h = self._normed(ops, hp, h, f"blk.{i}.", "post_ffw_norm")
        return ops.add(x, _scaled(ops, h, hp.residual_scale))

    def logits(self, ops: Ops[V], hp: HyperParameters, x: V) -> V:
        """The head on what the last layer made, ``[T, C] -> [T, vocab]``."""
        x = ops.norm(ops.wanted(x), "output_norm", self.norm, hp.norm_eps)
        logits = ops.linear(x, "token_embd" if hp.tied else "output")
        return _capped(ops, _scaled(ops, logits, 1 / hp.logit_divisor), hp.logit_cap)

    def _normed(self, ops: Ops[V], hp: HyperParameters, x: V, blk: str, role: str) -> V:
        """The norm of that role, where a layer has it."""
        return ops.norm(x, blk + role, self.norm, hp.norm_eps) if role in self.layer else x

    def _attention(self, ops: Ops[V], hp: HyperParameters, i: int, x: V) -> V:
        blk, rope = f"blk.{i}.", hp.rope_of(i)
        q, k, v = self._projections(ops, hp, blk, x)
        if self.whole_qk_norm:
            q, k = (self._normed(ops, hp, y, blk, f"attn_{n}_norm") for n, y in (("q", q), ("k", k)))
        q, k, v = (ops.heads(y, n) for y, n in ((q, hp.n_heads), (k, hp.n_kv_heads), (v, hp.n_kv_heads)))
        if not self.whole_qk_norm:
            q, k = (self._normed(ops, hp, y, blk, f"attn_{n}_norm") for n, y in (("q", q), ("k", k)))
        if rope is not None:
            q, k = ops.rope(q, rope), ops.rope(k, rope)
        scale = hp.attention_scale or hp.head_dim**-0.5
        a = ops.attention(
            q,
            k,
            v,
            layer=i,
            scale=scale,
            causal=self.kind == "decoder",
            window=hp.window_of(i),
            cap=hp.attention_cap,
        )
        return ops.linear(_ending(ops, hp, i, a), blk + "attn_output")

    def _projections(self, ops: Ops[V], hp: HyperParameters, blk: str, x: V) -> tuple[V, V, V]:
        if "attn_qkv" not in self.layer:
            return ops.linear(x, blk + "attn_q"), ops.linear(x, blk + "attn_k"), ops.linear(x, blk + "attn_v")
        keys = hp.n_kv_heads * hp.head_dim
        q, k, v = ops.split(ops.linear(x, blk + "attn_qkv"), [hp.n_heads * hp.head_dim, keys, keys])
        return q, k, v

    def _feed_forward(self, ops: Ops[V], hp: HyperParameters, i: int, x: V) -> V:
        blk = f"blk.{i}."
        if hp.n_experts:
            scores = ops.linear(x, blk + "ffn_gate_inp")
            weights = ops.route(scores, hp.n_experts_used, hp.normalised_experts)
            return ops.experts(x, blk, weights, hp.n_experts, self.activation)
        if not self.gated:
            h = ops.activation(ops.linear(x, blk + "ffn_up"), self.activation)
            return ops.linear(h, blk + "ffn_down")
        if "ffn_gate" in self.layer:
            gate, up = ops.linear(x, blk + "ffn_gate"), ops.linear(x, blk + "ffn_up")
        else:
            gate, up = ops.split(ops.linear(x, blk + "ffn_up"), [hp.ffn, hp.ffn])
        return ops.linear(ops.mul(ops.activation(gate, self.activation), up), blk + "ffn_down")


def _scaled(ops: Ops[V], x: V, factor: float) -> V:
    return x if factor == 1.0 else ops.scale(x, factor)


def _capped(ops: Ops[V], x: V, cap: float) -> V:
    """``x`` bent so that it stays between -cap and cap; 0 leaves it."""
    return ops.scale(ops.activation(ops.scale(x, 1 / cap), "tanh"), cap) if cap else x


def _ending(ops: Ops[V], hp: HyperParameters, i: int, x: V) -> V:
    """In the last layer no token reads another's values once attention is done."""
    return ops.settled(x) if i == hp.n_layers - 1 else x
