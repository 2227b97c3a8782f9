"""DistilBERT: BERT's graph under other names, without segments."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from edgeq.families.encoder import Classifier, Encoder


class DistilBert(Encoder):
    """Its classifier has a ReLU, where llama.cpp's graph has a hyperbolic tangent."""

    model_types = ("distilbert",)
    architecture = "bert"
    source_prefixes = ("distilbert.", "")
    block = "transformer.layer.{}."
    has_segments = False
    llama_cpp_head = False
    config_names: ClassVar[Mapping[str, str]] = {
        "hidden_size": "dim",
        "num_attention_heads": "n_heads",
        "num_hidden_layers": "n_layers",
        "intermediate_size": "hidden_dim",
        "hidden_act": "activation",
    }
    outer: ClassVar[Mapping[str, str]] = {
        "token_embd": "embeddings.word_embeddings",
        "position_embd": "embeddings.position_embeddings",
        "token_embd_norm": "embeddings.LayerNorm",
    }
    layer: ClassVar[Mapping[str, str]] = {
        "attn_q": "attention.q_lin",
        "attn_k": "attention.k_lin",
        "attn_v": "attention.v_lin",
        "attn_output": "attention.out_lin",
        "attn_output_norm": "sa_layer_norm",
        "ffn_up": "ffn.lin1",
        "ffn_down": "ffn.lin2",
        "layer_output_norm": "output_layer_norm",
    }
    classifiers: ClassVar[Mapping[str, Classifier]] = {
        "sequence": Classifier("classifier", dense="pre_classifier", activation="relu"),
        "tokens": Classifier("classifier"),
    }
    # What transformers takes; every config.json that it wrote says these anyway.
    defaults: ClassVar[Mapping[str, Any]] = {
        "dim": 768,
        "n_heads": 12,
        "n_layers": 6,
        "hidden_dim": 3072,
        "max_position_embeddings": 512,
        "vocab_size": 30522,
    }
