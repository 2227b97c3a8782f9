"""Tiny models of every encoder family, as ``models`` has the decoders: plain ones, and classifiers."""

from __future__ import annotations

from typing import Any

from oracle import models

_COMMON: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 256,
    "type_vocab_size": 2,
    "vocab_size": models.VOCAB,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
    "pad_token_id": 0,
}
_ROBERTA = _COMMON | {
    "pad_token_id": 1,
    "layer_norm_eps": 1e-5,
    "type_vocab_size": 1,
    "max_position_embeddings": 258,  # of which the first two are never used
}
_DISTIL: dict[str, Any] = {
    "model_type": "distilbert",
    "activation": "gelu",
    "dim": 64,
    "hidden_dim": 96,
    "n_heads": 4,
    "n_layers": 2,
    "max_position_embeddings": 256,
    "vocab_size": models.VOCAB,
    "pad_token_id": 0,
}
_MODERN: dict[str, Any] = {
    "model_type": "modernbert",
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 5,
    "num_attention_heads": 4,
    "max_position_embeddings": 256,
    "vocab_size": models.VOCAB,
    "hidden_activation": "gelu",
    "norm_eps": 1e-5,
    "local_attention": 20,
    "global_attn_every_n_layers": 3,
    "global_rope_theta": 160000.0,
    "local_rope_theta": 10000.0,
    "pad_token_id": 0,
}
_THREE = {"id2label": {"0": "bad", "1": "so so", "2": "good"}, "label2id": {"bad": 0, "so so": 1, "good": 2}}
_ONE = {"id2label": {"0": "relevance"}, "label2id": {"relevance": 0}}


def _classifier(base: dict[str, Any], name: str, labels: dict[str, Any], **more: Any) -> dict[str, Any]:
    return base | {"architectures": [name]} | labels | more


_BERT = _COMMON | {"model_type": "bert", "architectures": ["BertModel"]}
_XLM = _ROBERTA | {"model_type": "xlm-roberta", "architectures": ["XLMRobertaModel"]}

# By name: the family's model_type, or that and a variant.
MODELS: dict[str, dict[str, Any]] = {
    "bert": _BERT,
    "bert-sequence": _classifier(_BERT, "BertForSequenceClassification", _THREE),
    "bert-tokens": _classifier(_BERT, "BertForTokenClassification", _THREE),
    "roberta": _ROBERTA | {"model_type": "roberta", "architectures": ["RobertaModel"]},
    "xlm-roberta": _XLM,
    "xlm-roberta-sequence": _classifier(_XLM, "XLMRobertaForSequenceClassification", _ONE),
    "xlm-roberta-tokens": _classifier(_XLM, "XLMRobertaForTokenClassification", _THREE),
    "camembert": _ROBERTA | {"model_type": "camembert", "architectures": ["CamembertModel"]},
    "distilbert": _DISTIL | {"architectures": ["DistilBertModel"]},
    "distilbert-sequence": _classifier(_DISTIL, "DistilBertForSequenceClassification", _THREE),
    "nomic_bert": _COMMON
    | {"model_type": "nomic_bert", "architectures": ["NomicBertModel"], "hidden_act": "silu"}
    | {"rope_parameters": {"rope_theta": 1000.0, "rope_type": "default"}},
    "modernbert": _MODERN | {"architectures": ["ModernBertModel"]},
    "modernbert-sequence": _classifier(
        _MODERN, "ModernBertForSequenceClassification", _THREE, classifier_pooling="mean"
    ),
    "modernbert-tokens": _classifier(_MODERN, "ModernBertForTokenClassification", _THREE),
}
# What else there is of a family's first config.json, under names of its own.
NOMIC_FIRST: dict[str, Any] = {
    "model_type": "nomic_bert",
    "architectures": ["NomicBertModel"],
    "activation_function": "swiglu",
    "causal": False,
    "layer_norm_epsilon": 1e-12,
    "max_trained_positions": 256,
    "mlp_fc1_bias": False,
    "mlp_fc2_bias": False,
    "n_embd": 64,
    "n_head": 4,
    "n_inner": 96,
    "n_layer": 2,
    "n_positions": 1024,
    "prenorm": False,
    "qkv_proj_bias": False,
    "rotary_emb_base": 1000,
    "rotary_emb_fraction": 1.0,
    "rotary_emb_interleaved": False,
    "rotary_emb_scale_base": None,
    "rotary_scaling_factor": 2,
    "type_vocab_size": 2,
    "use_rms_norm": False,
    "vocab_size": models.VOCAB,
}


def tokens(model: str) -> list[int]:
    """The text: every token may come, but for padding."""
    padding = MODELS[model]["pad_token_id"]
    return [token if token != padding else padding + 1 for token in models.tokens()]


def texts(model: str) -> list[list[int]]:
    """What golden answers there are of: all tokens; of a classifier of sequences parts of them, too."""
    whole = tokens(model)
    parts = [whole[start : start + 20 + start // 4] for start in range(0, 96, 16)]
    return [whole, *parts] if model.endswith("-sequence") else [whole]
