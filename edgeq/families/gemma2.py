"""Gemma 2: norms before and after, soft caps, and a sliding window in every other layer."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

from edgeq.errors import InputError
from edgeq.families.base import HyperParameters, MetadataReader, config_number
from edgeq.families.decoder import ATTENTION, FEED_FORWARD, Decoder


class Gemma2(Decoder):
    """Embeddings are scaled by √hidden, and norms by 1 + weight."""

    model_types: ClassVar[tuple[str, ...]] = ("gemma2",)
    architecture = "gemma2"
    norm_shift = 1.0
    activation = "gelu_tanh"
    activation_key = "hidden_activation"
    window_period = 2
    llama_cpp_windows = True
    largest = 46  # layers of the one size whose attention scale llama.cpp takes from the hidden size
    layer: ClassVar[Mapping[str, str]] = {
        "attn_norm": "input_layernorm",
        **ATTENTION,
        "post_attention_norm": "post_attention_layernorm",
        "ffn_norm": "pre_feedforward_layernorm",
        **FEED_FORWARD,
        "post_ffw_norm": "post_feedforward_layernorm",
    }
    defaults: ClassVar[Mapping[str, Any]] = {
        "head_dim": 256,
        "tie_word_embeddings": True,
        "max_position_embeddings": 8192,
        "query_pre_attn_scalar": 256,
        "sliding_window": 4096,
        "attn_logit_softcapping": 50.0,
        "final_logit_softcapping": 30.0,
    }

    def from_config(self, config: Mapping[str, Any]) -> HyperParameters:
        config = {**self.defaults, **config}
        if config.get("use_bidirectional_attention"):
            raise InputError("config.json: use_bidirectional_attention true: embeddings are not supported")
        hp = super().from_config(config)
        caps = [
            config_number(config, key) if config.get(key) is not None else 0.0
            for key in ("attn_logit_softcapping", "final_logit_softcapping")
        ]
        return replace(
            hp,
            embed_scale=math.sqrt(hp.hidden),
            attention_scale=config_number(config, "query_pre_attn_scalar") ** -0.5,
            attention_cap=caps[0],
            logit_cap=caps[1],
        )

    def from_metadata(self, reader: MetadataReader) -> HyperParameters:
        hp = super().from_metadata(reader)
        return replace(hp, embed_scale=math.sqrt(hp.hidden), attention_scale=self._implied_scale(hp))

    def metadata(self, hp: HyperParameters) -> dict[str, Any]:
        if not math.isclose(hp.attention_scale, self._implied_scale(hp), rel_tol=1e-6):
            raise InputError(
                f"config.json: query_pre_attn_scalar: llama.cpp's {self.architecture} graph has "
                f"{self._implied_scale(hp) ** -2:g} for such a model, not {hp.attention_scale**-2:g}"
            )
        implied = ("embedding_scale", "attention.scale")
        return {key: value for key, value in super().metadata(hp).items() if key not in implied}

    def _implied_scale(self, hp: HyperParameters) -> float:
        """What llama.cpp takes (load_arch_hparams in src/models/gemma2.cpp and gemma3.cpp)."""
        width = hp.hidden // hp.n_heads if hp.n_layers == self.largest else hp.head_dim
        return math.sqrt(1 / width)
