"""nomic-embed-text v1 and v1.5: BERT with rope, a gated feed-forward and no biases but those of its norms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

from edgeq.errors import InputError
from edgeq.families.base import HyperParameters, config_count, config_number
from edgeq.families.encoder import Classifier, Encoder
from edgeq.families.rope import Rope
from edgeq.families.rope_keys import rope_from_config

_DEFAULT_THETA = 1000.0
# What only the first config.json has, and the values of which the graph is made.
_FIXED: dict[str, Any] = {
    "causal": False,
    "mlp_fc1_bias": False,
    "mlp_fc2_bias": False,
    "parallel_block": False,
    "prenorm": False,
    "qkv_proj_bias": False,
    "rotary_emb_fraction": 1.0,
    "rotary_emb_interleaved": False,
    "rotary_emb_scale_base": None,
    "scale_attn_by_inverse_layer_idx": False,
    "use_rms_norm": False,
}


class NomicBert(Encoder):
    """Both config.json's are read, the first one (``n_embd``) and that of transformers' port (``hidden_size``).

    The checkpoint's names are the first ones in either; transformers saves them so.
    """

    model_types = ("nomic_bert",)
    architecture = "nomic-bert"
    source_prefixes = ("nomic_bert.", "bert.", "")
    block = "encoder.layers.{}."
    positions = "rope"
    activation = "silu"
    activation_name = "silu"
    linear_bias = False
    llama_cpp_head = False
    defaults: ClassVar[Mapping[str, Any]] = {"type_vocab_size": 2}
    outer: ClassVar[Mapping[str, str]] = {
        "token_embd": "embeddings.word_embeddings",
        "token_types": "embeddings.token_type_embeddings",
        "token_embd_norm": "emb_ln",
    }
    layer: ClassVar[Mapping[str, str]] = {
        "attn_qkv": "attn.Wqkv",
        "attn_output": "attn.out_proj",
        "attn_output_norm": "norm1",
        "ffn_up": "mlp.fc11",
        "ffn_gate": "mlp.fc12",
        "ffn_down": "mlp.fc2",
        "layer_output_norm": "norm2",
    }
    classifiers: ClassVar[Mapping[str, Classifier]] = {
        "sequence": Classifier("classifier", dense="pooler.dense"),
        "tokens": Classifier("classifier"),
    }

    def names(self, config: Mapping[str, Any]) -> Mapping[str, str]:
        if "n_embd" not in config:
            return {}
        return {
            "hidden_size": "n_embd",
            "num_attention_heads": "n_head",
            "num_hidden_layers": "n_layer",
            "intermediate_size": "n_inner",
            "max_position_embeddings": "n_positions",
            "layer_norm_eps": "layer_norm_epsilon",
        }

    def from_config(self, config: Mapping[str, Any]) -> HyperParameters:
        for field, value in _FIXED.items():
            if config.get(field, value) != value:
                raise InputError(f"config.json: {field} must be {value!r}, not {config[field]!r}")
        if config.get("moe_every_n_layers"):
            raise InputError("config.json: moe_every_n_layers: experts of this family are not supported")
        if "n_embd" in config and config.get("activation_function") != "swiglu":
            raise InputError(
                f"config.json: activation_function {config.get('activation_function')!r} is not swiglu"
            )
        hp = super().from_config(config)
        if "n_embd" not in config:
            return hp
        # Beyond this, the first implementation changes the angles with the text's length.
        trained = config_count(config, "max_trained_positions", 2048)
        return replace(hp, context=min(hp.context, trained))

    def _rope(self, config: Mapping[str, Any], head_dim: int) -> Rope | None:
        if "n_embd" in config:
            return Rope(config_number(config, "rotary_emb_base", 10000.0), head_dim)
        return rope_from_config({"rope_theta": _DEFAULT_THETA, **config}, head_dim)
