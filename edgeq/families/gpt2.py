"""GPT-2: learned positions, layer norms, biases everywhere, a plain feed-forward."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from edgeq.errors import InputError
from edgeq.families.base import HyperParameters, config_count, config_number
from edgeq.families.decoder import Decoder


class GPT2(Decoder):
    """Its matrices are stored [in, out]."""

    model_types = ("gpt2",)
    architecture = "gpt2"
    source_prefixes = ("transformer.", "")
    positions = "table"
    norm = "layer"
    activation = "gelu_tanh"
    activation_key = "activation_function"
    gated = False
    transposed = True
    biased = frozenset({"attn_qkv", "attn_output", "ffn_up", "ffn_down"})
    block = "h.{}."
    layer: ClassVar[Mapping[str, str]] = {
        "attn_norm": "ln_1",
        "attn_qkv": "attn.c_attn",
        "attn_output": "attn.c_proj",
        "ffn_norm": "ln_2",
        "ffn_up": "mlp.c_fc",
        "ffn_down": "mlp.c_proj",
    }
    outer: ClassVar[Mapping[str, str]] = {
        "token_embd": "wte",
        "position_embd": "wpe",
        "output_norm": "ln_f",
        "output": "lm_head",
    }

    def from_config(self, config: Mapping[str, Any]) -> HyperParameters:
        self._check_activation({"activation_function": "gelu_new", **config})
        for switch, usual in (("scale_attn_weights", True), ("scale_attn_by_inverse_layer_idx", False)):
            if config.get(switch, usual) is not usual:
                raise InputError(f"config.json: {switch} must be {str(usual).lower()}")
        hidden, n_heads = config_count(config, "n_embd"), config_count(config, "n_head")
        if hidden % n_heads:
            raise InputError(f"config.json: n_embd {hidden} is not a multiple of n_head {n_heads}")
        return HyperParameters(
            n_layers=config_count(config, "n_layer"),
            context=config_count(config, "n_positions", 1024),
            hidden=hidden,
            ffn=config_count(config, "n_inner", 4 * hidden),
            n_heads=n_heads,
            n_kv_heads=n_heads,
            head_dim=hidden // n_heads,
            vocab=config_count(config, "vocab_size"),
            norm_eps=config_number(config, "layer_norm_epsilon", 1e-5),
            tied=bool(config.get("tie_word_embeddings", True)),
        )
