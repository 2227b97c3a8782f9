"""What config.json may say, and what no file can be made of: one-line errors that name the field."""

from __future__ import annotations

from typing import Any

import pytest
from oracle import models

from edgeq import families
from edgeq.errors import InputError
from edgeq.families import HyperParameters
from edgeq.families.base import MetadataReader
from edgeq.families.rope import Rope


def _read(config: dict[str, Any]) -> HyperParameters:
    return families.for_config(config, "config.json").from_config(config)


def _metadata(config: dict[str, Any]) -> dict[str, Any]:
    family = families.for_config(config, "config.json")
    return family.metadata(family.from_config(config))


@pytest.mark.parametrize("name", models.MODELS)
def test_metadata_read_back(name: str) -> None:
    config = models.MODELS[name]
    family, hp = families.for_config(config, ""), _read(config)
    shapes = {spec.name: spec.shape for spec in family.tensors(hp)}
    keys = {f"{family.architecture}.{key}": value for key, value in family.metadata(hp).items()}
    vectors = hp.rope.tensors() if hp.rope else {}
    reader = MetadataReader(family.architecture, keys, shapes, vectors)
    assert families.for_architecture(family.architecture, "").from_metadata(reader) == hp


def test_ropes_of_transformers_5() -> None:
    old = models.MODELS["gemma3"]
    new = {key: value for key, value in old.items() if not key.startswith("rope")} | {
        "rope_parameters": {
            "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1000000.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
        }
    }
    assert _read(new) == _read(old)
    for name in ("llama", "phi3", "qwen2"):
        old = models.MODELS[name]
        new = old | {"rope_scaling": None, "rope_parameters": old["rope_scaling"] | {"rope_theta": 10000.0}}
        assert _read(new) == _read(old)


def test_the_text_part_of_a_model_with_images() -> None:
    whole = {"model_type": "gemma3", "text_config": models.MODELS["gemma3"], "vision_config": {}}
    assert _read(whole) == _read(models.MODELS["gemma3"])


def test_layers_with_a_window() -> None:
    assert _read(models.MODELS["qwen2-window"]).windows == (0, 50)
    assert _read(models.MODELS["qwen2"]).windows == ()
    assert _read(models.MODELS["gemma3"]).windows == (40, 40, 40, 40, 40, 0, 40)
    kinds = ["full_attention", "sliding_attention"] * 2
    config = models.MODELS["gemma2"] | {"layer_types": kinds}
    assert _read(config).windows == (0, 40, 0, 40)
    assert _metadata(config)["attention.sliding_window_pattern"] == [False, True, False, True]
    assert "attention.sliding_window_pattern" not in _metadata(models.MODELS["gemma2"])
    assert _read(models.MODELS["phi3"]).windows == ()  # no shorter than the context


def test_what_llama_cpp_leaves_out_is_said() -> None:
    for name in ("mistral", "qwen2-window"):
        config = models.MODELS[name]
        (note,) = families.for_config(config, "").gguf_notes(_read(config))
        assert str(config["sliding_window"]) in note
    for name in ("llama", "gemma2", "gemma3"):
        config = models.MODELS[name]
        assert families.for_config(config, "").gguf_notes(_read(config)) == []


@pytest.mark.parametrize(
    ("name", "change", "field"),
    [
        ("llama", {"hidden_act": "gelu"}, "hidden_act"),
        ("llama", {"hidden_act": ["silu"]}, "hidden_act"),
        ("mistral", {"num_hidden_layers": 2**31 - 1}, "num_hidden_layers"),
        ("mistral", {"layer_types": [["sliding_attention"], {}]}, "layer_types"),
        ("smollm3", {"no_rope_layers": [1, 0, [], {}]}, "no_rope_layers"),
        ("llama", {"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}}, "rope_scaling"),
        ("llama", {"rope_scaling": {"rope_type": "longrope", "short_factor": [1.0]}}, "short_factor"),
        ("llama", {"partial_rotary_factor": 1.5}, "partial_rotary_factor"),
        ("llama", {"partial_rotary_factor": 0.1}, "partial_rotary_factor"),
        ("mistral", {"sliding_window": 0}, "sliding_window"),
        ("mistral", {"layer_types": ["sliding_attention"]}, "layer_types"),
        ("qwen2", {"rope_scaling": {"type": "yarn"}}, "factor"),
        ("qwen2", {"rope_scaling": {"type": "yarn", "factor": 4.0, "truncate": False}}, "truncate"),
        ("smollm3", {"no_rope_layers": [1, 0]}, "no_rope_layers"),
        ("granite", {"logits_scaling": 0}, "logits_scaling"),
        ("gemma2", {"use_bidirectional_attention": True}, "use_bidirectional_attention"),
        ("gemma3", {"attn_logit_softcapping": 50.0}, "attn_logit_softcapping"),
        ("gpt2", {"n_head": 5}, "n_head"),
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx"),
        ("mixtral", {"num_experts_per_tok": 5}, "num_experts_per_tok"),
        ("qwen3_moe", {"mlp_only_layers": [0]}, "mlp_only_layers"),
    ],
)
def test_configs_that_cannot_be(name: str, change: dict[str, Any], field: str) -> None:
    with pytest.raises(InputError, match=field):
        _read(models.MODELS[name] | change)


@pytest.mark.parametrize(
    ("name", "change", "field"),
    [
        ("qwen2", {"rope_scaling": models.MODELS["llama"]["rope_scaling"]}, "rope_scaling"),
        ("smollm3", {"no_rope_layers": [1, 0, 1, 0]}, "no_rope_layers"),
        ("olmo2", {"tie_word_embeddings": True}, "tie_word_embeddings"),
        ("gemma2", {"query_pre_attn_scalar": 64}, "query_pre_attn_scalar"),
        ("qwen3_moe", {"norm_topk_prob": False}, "norm_topk_prob"),
        ("llama", {"partial_rotary_factor": 0.5, "rope_scaling": None}, "partial_rotary_factor"),
    ],
)
def test_what_llama_cpp_cannot_do_is_refused_for_gguf(name: str, change: dict[str, Any], field: str) -> None:
    config = models.MODELS[name] | change
    _read(config)
    with pytest.raises(InputError, match=field):
        _metadata(config)


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("qwen2", "expert_count", 4),
        ("mixtral", "expert_used_count", 5),
        ("mistral", "rope.dimension_count", 8),
        ("qwen2", "rope.scaling.type", "dynamic"),
        ("gemma2", "attention.sliding_window_pattern", [True]),
        ("gemma2", "block_count", 2**31),
        ("phi3", "rope.freq_base", -1.0),
    ],
)
def test_metadata_that_cannot_be(name: str, key: str, value: Any) -> None:
    config = models.MODELS[name]
    family, hp = families.for_config(config, ""), _read(config)
    keys = {f"{family.architecture}.{own}": one for own, one in (family.metadata(hp) | {key: value}).items()}
    shapes = {"token_embd.weight": (hp.vocab, hp.hidden)}
    reader = MetadataReader(family.architecture, keys, shapes, hp.rope.tensors() if hp.rope else {})
    with pytest.raises(InputError, match=key.split(".")[-1]):
        families.for_architecture(family.architecture, "").from_metadata(reader)


def test_yarn_divides_the_slow_and_keeps_the_fast() -> None:
    rope = _read(models.MODELS["qwen2"]).rope
    assert rope is not None
    plain = Rope(rope.theta, rope.dim).frequencies()
    ratio = plain / rope.frequencies()
    assert ratio[0] == pytest.approx(1)
    assert ratio[-1] == pytest.approx(4)
    assert rope.magnitude == pytest.approx(1.1386, abs=1e-4)
