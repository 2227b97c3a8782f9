"""BERT encoders: MiniLM, BGE, E5 and other sentence encoders, and classifiers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from edgeq.errors import InputError
from edgeq.families.base import HyperParameters
from edgeq.families.encoder import Classifier, Encoder


class Bert(Encoder):
    """Post-norm encoder with absolute positions, biases everywhere and a GELU feed-forward."""

    model_types: ClassVar[tuple[str, ...]] = ("bert",)
    architecture = "bert"
    source_prefixes = ("bert.", "")
    defaults: ClassVar[Mapping[str, Any]] = {"type_vocab_size": 2}
    outer: ClassVar[Mapping[str, str]] = {
        "token_embd": "embeddings.word_embeddings",
        "position_embd": "embeddings.position_embeddings",
        "token_types": "embeddings.token_type_embeddings",
        "token_embd_norm": "embeddings.LayerNorm",
    }
    layer: ClassVar[Mapping[str, str]] = {
        "attn_q": "attention.self.query",
        "attn_k": "attention.self.key",
        "attn_v": "attention.self.value",
        "attn_output": "attention.output.dense",
        "attn_output_norm": "attention.output.LayerNorm",
        "ffn_up": "intermediate.dense",
        "ffn_down": "output.dense",
        "layer_output_norm": "output.LayerNorm",
    }
    classifiers: ClassVar[Mapping[str, Classifier]] = {
        "sequence": Classifier("classifier", dense="pooler.dense"),
        "tokens": Classifier("classifier"),
    }

    def from_config(self, config: Mapping[str, Any]) -> HyperParameters:
        if config.get("position_embedding_type", "absolute") != "absolute":
            raise InputError("config.json: position_embedding_type must be absolute")
        if config.get("is_decoder"):
            raise InputError("config.json: is_decoder must be false: this family is an encoder")
        return super().from_config(config)
