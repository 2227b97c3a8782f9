"""ModernBERT: norms before, layers that see a window by turns, two ropes, a gated feed-forward, no biases."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from edgeq.errors import InputError
from edgeq.families.base import HyperParameters, config_count
from edgeq.families.decoder_keys import local_layers, windows_of
from edgeq.families.encoder import Classifier, Encoder
from edgeq.families.encoder_keys import every_other
from edgeq.families.ops import Pooling
from edgeq.families.rope import Rope
from edgeq.families.rope_keys import rope_from_config

_NO_BIASES = ("attention_bias", "mlp_bias", "norm_bias", "classifier_bias")


class ModernBert(Encoder):
    """The first layer has no norm before its attention: it follows that of the embeddings."""

    model_types = ("modernbert",)
    architecture = "modern-bert"
    source_prefixes = ("model.", "")
    block = "layers.{}."
    positions = "rope"
    has_segments = False
    linear_bias = norm_bias = False
    fused_gate = True
    config_names: ClassVar[Mapping[str, str]] = {
        "hidden_act": "hidden_activation",
        "layer_norm_eps": "norm_eps",
    }
    defaults: ClassVar[Mapping[str, Any]] = {
        "norm_eps": 1e-5,
        "local_attention": 128,
        "max_position_embeddings": 8192,
        "classifier_pooling": "cls",
    }
    outer: ClassVar[Mapping[str, str]] = {
        "token_embd": "embeddings.tok_embeddings",
        "token_embd_norm": "embeddings.norm",
        "output_norm": "final_norm",
    }
    layer: ClassVar[Mapping[str, str]] = {
        "attn_norm": "attn_norm",
        "attn_qkv": "attn.Wqkv",
        "attn_output": "attn.Wo",
        "ffn_norm": "mlp_norm",
        "ffn_up": "mlp.Wi",
        "ffn_down": "mlp.Wo",
    }
    classifiers: ClassVar[Mapping[str, Classifier]] = dict.fromkeys(
        ("sequence", "tokens"),
        Classifier("classifier", dense="head.dense", activation="gelu", norm="head.norm", dense_bias=False),
    )

    def parts(self, i: int) -> Mapping[str, str]:
        if i:
            return self.layer
        return {role: name for role, name in self.layer.items() if role != "attn_norm"}

    def from_config(self, config: Mapping[str, Any]) -> HyperParameters:
        for field in _NO_BIASES:
            if config.get(field):
                raise InputError(f"config.json: {field} must be false: this family has no such biases")
        if config.get("classifier_activation", "gelu") != "gelu":
            raise InputError("config.json: classifier_activation must be gelu")
        return super().from_config(config)

    def _rope(self, config: Mapping[str, Any], head_dim: int) -> Rope | None:
        return _rope_of(config, "full_attention", "global_rope_theta", 160_000.0, head_dim)

    def _local_rope(self, config: Mapping[str, Any], head_dim: int) -> Rope | None:
        return _rope_of(config, "sliding_attention", "local_rope_theta", 10_000.0, head_dim)

    def _windows(self, config: Mapping[str, Any], n_layers: int) -> tuple[int, ...]:
        local = local_layers(config, n_layers)
        if local is None:
            local = every_other(n_layers, config_count(config, "global_attn_every_n_layers", 3))
        return windows_of(local, config_count(config, "local_attention"))

    def _head_pooling(self, config: Mapping[str, Any]) -> Pooling:
        pooling: Pooling = "mean" if config["classifier_pooling"] == "mean" else "cls"
        if config["classifier_pooling"] != pooling:
            raise InputError(
                f"config.json: classifier_pooling must be cls or mean, not {config['classifier_pooling']!r}"
            )
        return pooling


def _rope_of(config: Mapping[str, Any], kind: str, key: str, theta: float, head_dim: int) -> Rope:
    """The rope of that kind of layer; ``rope_parameters`` of transformers 5, or a field of its own before that."""
    parameters = config.get("rope_parameters")
    if isinstance(parameters, Mapping) and parameters.get(kind) is not None:
        nested = {"rope_theta": theta, "rope_parameters": parameters[kind]}
    else:
        nested = {"rope_theta": theta if config.get(key) is None else config[key]}
    rope = rope_from_config(nested, head_dim)
    if rope.scaling != "default":
        raise InputError(f"config.json: rope_parameters.{kind} must not be scaled")
    return rope
