"""BERT encoders: MiniLM, BGE, E5 and other sentence encoders."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

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

# enum llama_pooling_type
_POOLING: dict[Literal["none", "mean", "cls"], int] = {"none": 0, "mean": 1, "cls": 2}


class Bert(Family):
    """Post-norm encoder with absolute positions, biases everywhere and a GELU feed-forward."""

    model_types = ("bert",)
    architecture = "bert"
    kind = "encoder"
    source_prefixes = ("", "bert.")

    def from_config(self, config: Mapping[str, Any]) -> HyperParameters:
        hidden = config_count(config, "hidden_size")
        n_heads, head_dim = head_count(config, hidden)
        if config.get("hidden_act", "gelu") != "gelu":
            raise InputError(
                f"config.json: hidden_act {config['hidden_act']!r} is not gelu, as this family has it"
            )
        if config.get("position_embedding_type", "absolute") != "absolute":
            raise InputError("config.json: position_embedding_type must be absolute")
        return HyperParameters(
            n_layers=config_count(config, "num_hidden_layers"),
            context=config_count(config, "max_position_embeddings"),
            hidden=hidden,
            ffn=config_count(config, "intermediate_size"),
            n_heads=n_heads,
            n_kv_heads=n_heads,
            head_dim=head_dim,
            vocab=config_count(config, "vocab_size"),
            norm_eps=config_number(config, "layer_norm_eps", 1e-12),
            n_token_types=config_count(config, "type_vocab_size", 2),
        )

    def from_metadata(self, reader: MetadataReader) -> HyperParameters:
        hidden, n_heads = reader.count("embedding_length"), reader.count("attention.head_count")
        if hidden % n_heads:
            raise InputError(
                f"GGUF metadata bert.embedding_length: {hidden} is not a multiple of {n_heads} heads"
            )
        pooling = reader.metadata.get("bert.pooling_type", 0)
        return HyperParameters(
            n_layers=reader.count("block_count"),
            context=reader.count("context_length"),
            hidden=hidden,
            ffn=reader.count("feed_forward_length"),
            n_heads=n_heads,
            n_kv_heads=n_heads,
            head_dim=hidden // n_heads,
            vocab=reader.rows("token_embd.weight"),
            norm_eps=reader.number("attention.layer_norm_epsilon"),
            n_token_types=reader.rows("token_types.weight"),
            pooling=next((name for name, number in _POOLING.items() if number == pooling), "none"),
        )

    def metadata(self, hp: HyperParameters) -> dict[str, Any]:
        return {
            "block_count": hp.n_layers,
            "context_length": hp.context,
            "embedding_length": hp.hidden,
            "feed_forward_length": hp.ffn,
            "attention.head_count": hp.n_heads,
            "attention.layer_norm_epsilon": hp.norm_eps,
            "attention.causal": False,
            "pooling_type": _POOLING[hp.pooling],
        }

    def tensors(self, hp: HyperParameters) -> Iterator[TensorSpec]:
        width = hp.hidden
        yield TensorSpec("token_embd.weight", "embeddings.word_embeddings.weight", (hp.vocab, width))
        yield TensorSpec("position_embd.weight", "embeddings.position_embeddings.weight", (hp.context, width))
        yield TensorSpec(
            "token_types.weight", "embeddings.token_type_embeddings.weight", (hp.n_token_types, width)
        )
        yield from _pair("token_embd_norm", "embeddings.LayerNorm", (width,))
        for i in range(hp.n_layers):
            blk, src = f"blk.{i}.", f"encoder.layer.{i}."
            for ours, theirs in (("attn_q", "query"), ("attn_k", "key"), ("attn_v", "value")):
                yield from _pair(blk + ours, f"{src}attention.self.{theirs}", (width, width))
            yield from _pair(blk + "attn_output", src + "attention.output.dense", (width, width))
            yield from _pair(blk + "attn_output_norm", src + "attention.output.LayerNorm", (width,))
            yield from _pair(blk + "ffn_up", src + "intermediate.dense", (hp.ffn, width))
            yield from _pair(blk + "ffn_down", src + "output.dense", (width, hp.ffn))
            yield from _pair(blk + "layer_output_norm", src + "output.LayerNorm", (width,))

    def forward(self, ops: Ops[V], hp: HyperParameters) -> V:
        x = ops.add(ops.embed("token_embd", ops.tokens()), ops.embed("position_embd", ops.positions()))
        x = ops.add(x, ops.embed("token_types", ops.token_types()))
        x = ops.norm(x, "token_embd_norm", "layer", hp.norm_eps)
        for i in range(hp.n_layers):
            blk = f"blk.{i}."
            q, k, v = (
                ops.heads(ops.linear(x, blk + name), hp.n_heads) for name in ("attn_q", "attn_k", "attn_v")
            )
            a = ops.attention(q, k, v, layer=i, scale=hp.head_dim**-0.5, causal=False)
            x = ops.add(x, ops.linear(a, blk + "attn_output"))
            x = ops.norm(x, blk + "attn_output_norm", "layer", hp.norm_eps)
            h = ops.activation(ops.linear(x, blk + "ffn_up"), "gelu")
            x = ops.add(x, ops.linear(h, blk + "ffn_down"))
            x = ops.norm(x, blk + "layer_output_norm", "layer", hp.norm_eps)
        return x


def _pair(name: str, source: str, shape: tuple[int, ...]) -> Iterator[TensorSpec]:
    yield TensorSpec(name + ".weight", source + ".weight", shape)
    yield TensorSpec(name + ".bias", source + ".bias", shape[:1])
