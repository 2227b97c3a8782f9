"""Llama and what shares its graph: Llama 2 and 3, Mistral, SmolLM2, TinyLlama."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from edgeq.errors import InputError
from edgeq.families.base import (
    Family,
    HyperParameters,
    MetadataReader,
    TensorSpec,
    config_count,
    config_number,
    head_count,
)
from edgeq.families.ops import Ops, V
from edgeq.families.rope import Rope, rope_from_config


class Llama(Family):
    """Pre-norm decoder: RMS norm, grouped-query attention with rope, SiLU-gated feed-forward."""

    model_types = ("llama", "mistral")
    architecture = "llama"
    kind = "decoder"
    source_prefixes = ("model.", "")

    def from_config(self, config: Mapping[str, Any]) -> HyperParameters:
        hidden = config_count(config, "hidden_size")
        n_heads, head_dim = head_count(config, hidden)
        n_kv_heads = config_count(config, "num_key_value_heads", n_heads)
        if n_heads % n_kv_heads:
            raise InputError(
                f"config.json: num_attention_heads {n_heads} is not a multiple of num_key_value_heads {n_kv_heads}"
            )
        if head_dim % 2:
            raise InputError(f"config.json: head_dim {head_dim} must be even for rope")
        if config.get("hidden_act", "silu") != "silu":
            raise InputError(
                f"config.json: hidden_act {config['hidden_act']!r} is not silu, as this family has it"
            )
        return HyperParameters(
            n_layers=config_count(config, "num_hidden_layers"),
            context=config_count(config, "max_position_embeddings", 2048),
            hidden=hidden,
            ffn=config_count(config, "intermediate_size"),
            n_heads=n_heads,
            n_kv_heads=n_kv_heads,
            head_dim=head_dim,
            vocab=config_count(config, "vocab_size"),
            norm_eps=config_number(config, "rms_norm_eps", 1e-6),
            rope=rope_from_config(config, head_dim),
            tied=bool(config.get("tie_word_embeddings", False)),
        )

    def from_metadata(self, reader: MetadataReader) -> HyperParameters:
        hidden, n_heads = reader.count("embedding_length"), reader.count("attention.head_count")
        head_dim = reader.count("attention.key_length", hidden // n_heads)
        n_kv_heads = reader.count("attention.head_count_kv", n_heads)
        if n_heads % n_kv_heads or head_dim % 2 or reader.count("rope.dimension_count", head_dim) != head_dim:
            raise InputError(
                "GGUF metadata llama.attention.* and llama.rope.dimension_count do not fit together"
            )
        scaling = reader.metadata.get("llama.rope.scaling.type", "none")
        if scaling not in ("none", "linear"):
            raise InputError(
                f"GGUF metadata llama.rope.scaling.type: {scaling!r} is not known; there are none, linear"
            )
        return HyperParameters(
            n_layers=reader.count("block_count"),
            context=reader.count("context_length"),
            hidden=hidden,
            ffn=reader.count("feed_forward_length"),
            n_heads=n_heads,
            n_kv_heads=n_kv_heads,
            head_dim=head_dim,
            vocab=reader.rows("token_embd.weight"),
            norm_eps=reader.number("attention.layer_norm_rms_epsilon"),
            rope=Rope(
                reader.number("rope.freq_base", 10000.0),
                head_dim,
                linear_factor=reader.number("rope.scaling.factor", 1.0) if scaling == "linear" else 1.0,
                factors=reader.vectors.get("rope_freqs.weight"),
            ),
            tied="output.weight" not in reader.shapes,
        )

    def metadata(self, hp: HyperParameters) -> dict[str, Any]:
        assert hp.rope is not None
        keys: dict[str, Any] = {
            "block_count": hp.n_layers,
            "context_length": hp.context,
            "embedding_length": hp.hidden,
            "feed_forward_length": hp.ffn,
            "attention.head_count": hp.n_heads,
            "attention.head_count_kv": hp.n_kv_heads,
            "attention.key_length": hp.head_dim,
            "attention.value_length": hp.head_dim,
            "attention.layer_norm_rms_epsilon": hp.norm_eps,
            "rope.freq_base": hp.rope.theta,
            "rope.dimension_count": hp.rope.dim,
            "vocab_size": hp.vocab,
        }
        if hp.rope.linear_factor != 1.0:
            keys |= {"rope.scaling.type": "linear", "rope.scaling.factor": hp.rope.linear_factor}
        return keys

    def tensors(self, hp: HyperParameters) -> Iterator[TensorSpec]:
        q_width, kv_width = hp.n_heads * hp.head_dim, hp.n_kv_heads * hp.head_dim
        yield TensorSpec("token_embd.weight", "embed_tokens.weight", (hp.vocab, hp.hidden))
        for i in range(hp.n_layers):
            blk, src = f"blk.{i}.", f"layers.{i}."
            attn, mlp = src + "self_attn.", src + "mlp."
            yield TensorSpec(blk + "attn_norm.weight", src + "input_layernorm.weight", (hp.hidden,))
            yield from _linear(blk + "attn_q", attn + "q_proj", q_width, hp.hidden, rope_heads=hp.n_heads)
            yield from _linear(blk + "attn_k", attn + "k_proj", kv_width, hp.hidden, rope_heads=hp.n_kv_heads)
            yield from _linear(blk + "attn_v", attn + "v_proj", kv_width, hp.hidden)
            yield from _linear(blk + "attn_output", attn + "o_proj", hp.hidden, q_width)
            yield TensorSpec(blk + "ffn_norm.weight", src + "post_attention_layernorm.weight", (hp.hidden,))
            yield from _linear(blk + "ffn_gate", mlp + "gate_proj", hp.ffn, hp.hidden)
            yield from _linear(blk + "ffn_up", mlp + "up_proj", hp.ffn, hp.hidden)
            yield from _linear(blk + "ffn_down", mlp + "down_proj", hp.hidden, hp.ffn)
        yield TensorSpec("output_norm.weight", "norm.weight", (hp.hidden,))
        if not hp.tied:
            yield TensorSpec("output.weight", "lm_head.weight", (hp.vocab, hp.hidden))

    def forward(self, ops: Ops[V], hp: HyperParameters) -> V:
        assert hp.rope is not None
        x = ops.embed("token_embd", ops.tokens())
        for i in range(hp.n_layers):
            blk = f"blk.{i}."
            h = ops.norm(x, blk + "attn_norm", "rms", hp.norm_eps)
            q = ops.rope(ops.heads(ops.linear(h, blk + "attn_q"), hp.n_heads), hp.rope)
            k = ops.rope(ops.heads(ops.linear(h, blk + "attn_k"), hp.n_kv_heads), hp.rope)
            v = ops.heads(ops.linear(h, blk + "attn_v"), hp.n_kv_heads)
            a = ops.attention(q, k, v, layer=i, scale=hp.head_dim**-0.5, causal=True)
            x = ops.add(x, ops.linear(a, blk + "attn_output"))
            h = ops.norm(x, blk + "ffn_norm", "rms", hp.norm_eps)
            gate = ops.activation(ops.linear(h, blk + "ffn_gate"), "silu")
            x = ops.add(x, ops.linear(ops.mul(gate, ops.linear(h, blk + "ffn_up")), blk + "ffn_down"))
        x = ops.norm(ops.wanted(x), "output_norm", "rms", hp.norm_eps)
        return ops.linear(x, "token_embd" if hp.tied else "output")


def _linear(name: str, source: str, rows: int, columns: int, rope_heads: int = 0) -> Iterator[TensorSpec]:
    yield TensorSpec(name + ".weight", source + ".weight", (rows, columns), rope_heads=rope_heads)
    yield TensorSpec(name + ".bias", source + ".bias", (rows,), optional=True, rope_heads=rope_heads)
