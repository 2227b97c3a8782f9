"""Gemma 3, its text part: Gemma 2 with norms of queries and keys, and two ropes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

from edgeq.errors import InputError
from edgeq.families.base import BY_ARCHITECTURE, Family, HyperParameters, MetadataReader, config_count
from edgeq.families.decoder import FEED_FORWARD, QK_NORM_ATTENTION
from edgeq.families.decoder_keys import periodic
from edgeq.families.gemma2 import Gemma2
from edgeq.families.rope import Rope
from edgeq.families.rope_keys import rope_from_config

_LOCAL_THETA = "rope.freq_base_swa"


class Gemma3(Gemma2):
    """Five of six layers have a window and a rope of their own. ``gemma3`` is the model with a vision tower."""

    model_types: ClassVar[tuple[str, ...]] = ("gemma3_text", "gemma3")
    architecture = "gemma3"
    source_prefixes = ("model.", "language_model.model.", "model.language_model.", "")
    window_period = 6
    llama_cpp_scalings = frozenset({"default", "linear"})  # it would scale the local rope by yarn, too
    largest = 62
    layer: ClassVar[Mapping[str, str]] = {
        "attn_norm": "input_layernorm",
        **QK_NORM_ATTENTION,
        "post_attention_norm": "post_attention_layernorm",
        "ffn_norm": "pre_feedforward_layernorm",
        **FEED_FORWARD,
        "post_ffw_norm": "post_feedforward_layernorm",
    }
    defaults: ClassVar[Mapping[str, Any]] = {
        "vocab_size": 262_208,
        "hidden_size": 2304,
        "intermediate_size": 9216,
        "num_hidden_layers": 26,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 256,
        "tie_word_embeddings": True,
        "max_position_embeddings": 131_072,
        "query_pre_attn_scalar": 256,
        "sliding_window": 4096,
        "rope_theta": 1_000_000.0,
        "rope_local_base_freq": 10_000.0,
    }

    def variant(self, config: Mapping[str, Any]) -> Family:
        bidirectional = self.architecture == Gemma3.architecture and config.get("use_bidirectional_attention")
        return BY_ARCHITECTURE["gemma-embedding"] if bidirectional else self

    def from_config(self, config: Mapping[str, Any]) -> HyperParameters:
        text = config.get("text_config", config)
        if not isinstance(text, Mapping):
            raise InputError(f"config.json: text_config must be an object, not {text!r}")
        text = {**self.defaults, **text}
        hp = super().from_config(text)
        if hp.attention_cap:
            raise InputError("config.json: attn_logit_softcapping is not a part of gemma3")
        return replace(hp, local_rope=self._local_rope(text, hp.head_dim))

    def _rope(self, config: Mapping[str, Any], head_dim: int) -> Rope | None:
        return rope_from_config(_with_rope(config, "full_attention"), head_dim)

    def _local_rope(self, config: Mapping[str, Any], head_dim: int) -> Rope:
        """That of the layers with a window; never scaled in the configs of transformers 4."""
        nested = _with_rope(config, "sliding_attention")
        if nested is config:
            nested = {"rope_theta": config["rope_local_base_freq"]}
        rope = rope_from_config(nested, head_dim)
        if rope.scaling != "default":
            raise InputError("config.json: rope_parameters.sliding_attention must not be scaled")
        return rope

    def _local_layers(self, config: Mapping[str, Any], n_layers: int) -> list[bool]:
        return periodic(n_layers, config_count(config, "sliding_window_pattern", self.window_period))

    def from_metadata(self, reader: MetadataReader) -> HyperParameters:
        hp = super().from_metadata(reader)
        assert hp.rope is not None
        return replace(hp, local_rope=Rope(reader.number(_LOCAL_THETA, 10_000.0), hp.rope.dim))

    def metadata(self, hp: HyperParameters) -> dict[str, Any]:
        assert hp.local_rope is not None
        return super().metadata(hp) | ({_LOCAL_THETA: hp.local_rope.theta} if hp.windows else {})


def _with_rope(config: Mapping[str, Any], kind: str) -> Mapping[str, Any]:
    """The config with the rope of that kind of layer, where transformers 5 gives one to each."""
    parameters = config.get("rope_parameters")
    if not isinstance(parameters, Mapping) or kind not in parameters:
        return config
    return {**config, "rope_parameters": parameters[kind]}
