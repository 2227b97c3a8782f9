"""What an encoder's config.json and weights may say, and what no file can be made of."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from oracle import encoders, models
from safetensors.numpy import load_file, save_file

from edgeq import families
from edgeq.convert.checkpoint_rows import CheckpointRows
from edgeq.engine import model as engine
from edgeq.errors import EdgeqError, InputError
from edgeq.families import HyperParameters
from edgeq.families.base import MetadataReader
from edgeq.source import SourceModel

IN_GGUF = [name for name in encoders.MODELS if not name.endswith(("-tokens", "distilbert-sequence"))]
Folder = Callable[[str], Path]


def _read(config: dict[str, Any]) -> HyperParameters:
    return families.for_config(config, "config.json").from_config(config)


def _reader(config: dict[str, Any], **changes: Any) -> MetadataReader:
    family, hp = families.for_config(config, ""), _read(config)
    shapes = {spec.name: spec.shape for spec in family.tensors(hp)}
    keys = family.metadata(hp) | changes
    return MetadataReader(
        family.architecture, {f"{family.architecture}.{key}": value for key, value in keys.items()}, shapes
    )


@pytest.mark.parametrize("name", IN_GGUF)
def test_metadata_read_back(name: str) -> None:
    reader = _reader(encoders.MODELS[name])
    assert families.for_architecture(reader.architecture, "").from_metadata(reader) == _read(
        encoders.MODELS[name]
    )


def test_nomics_first_config() -> None:
    assert _read(encoders.NOMIC_FIRST) == _read(encoders.MODELS["nomic_bert"])


def test_modernberts_ropes_of_transformers_5() -> None:
    old = encoders.MODELS["modernbert"]
    new = {key: value for key, value in old.items() if "rope" not in key and "every" not in key} | {
        "layer_types": ["full_attention", *2 * ["sliding_attention"], "full_attention", "sliding_attention"],
        "rope_parameters": {
            "full_attention": {"rope_type": "default", "rope_theta": 160000.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
        },
    }
    assert _read(new) == _read(old)
    assert _read(new).windows == (0, 20, 20, 0, 20)
    uneven = new | {"layer_types": ["sliding_attention", *4 * ["full_attention"]]}
    reader = _reader(uneven)
    assert reader.metadata["modern-bert.attention.sliding_window_pattern"] == [True, *4 * [False]]
    assert families.for_architecture("modern-bert", "").from_metadata(reader) == _read(uneven)
    assert _read(new | {"layer_types": ["full_attention"] * 5}).windows == ()


def test_labels() -> None:
    bert = encoders.MODELS["bert-sequence"]
    unnamed = {key: value for key, value in bert.items() if key not in ("id2label", "label2id")}
    assert _read(bert).labels == ("bad", "so so", "good")
    assert _read(unnamed).labels == ("LABEL_0", "LABEL_1")
    assert _read(unnamed | {"num_labels": 1}).label_scores == "sigmoid"
    assert _read(bert | {"problem_type": "multi_label_classification"}).label_scores == "sigmoid"
    assert _read(bert | {"problem_type": "regression"}).label_scores == "none"
    assert _read(encoders.MODELS["bert"]).labels == ()
    others = _reader(bert)
    del others.metadata["bert.classifier.output_labels"]  # type: ignore[attr-defined]
    assert families.for_architecture("bert", "").from_metadata(others).labels == (
        "LABEL_0",
        "LABEL_1",
        "LABEL_2",
    )


@pytest.mark.parametrize(
    ("name", "change", "field"),
    [
        ("bert", {"hidden_act": "relu"}, "hidden_act"),
        ("bert", {"num_attention_heads": 5}, "num_attention_heads"),
        ("bert", {"position_embedding_type": "relative_key"}, "position_embedding_type"),
        ("bert", {"is_decoder": True}, "is_decoder"),
        ("bert", {"num_hidden_layers": 2**31 - 1}, "num_hidden_layers"),
        ("bert", {"type_vocab_size": 0}, "type_vocab_size"),
        ("bert", {"architectures": "BertModel"}, "architectures"),
        ("bert-sequence", {"id2label": {"0": "a", "2": "b"}}, "id2label"),
        ("bert-sequence", {"id2label": {}}, "id2label"),
        ("bert-sequence", {"id2label": {"0": 7}}, "id2label"),
        ("bert-sequence", {"id2label": None, "num_labels": 2**30}, "num_labels"),
        ("roberta", {"pad_token_id": -1}, "pad_token_id"),
        ("roberta", {"pad_token_id": None}, "pad_token_id"),
        ("roberta", {"max_position_embeddings": 2}, "max_position_embeddings"),
        ("distilbert", {"n_heads": 5}, "dim 64 is not a multiple of n_heads 5"),
        ("distilbert", {"activation": "relu"}, "activation"),
        ("distilbert", {"dim": "64"}, "dim"),
        ("nomic_bert", {"hidden_act": "gelu"}, "hidden_act"),
        ("nomic_bert", {"head_dim": 8}, "head_dim"),
        ("nomic_bert", {"rope_parameters": {"rope_theta": -1.0}}, "rope_theta"),
        ("modernbert", {"norm_bias": True}, "norm_bias"),
        ("modernbert", {"hidden_activation": "silu"}, "hidden_activation"),
        ("modernbert", {"layer_types": ["full_attention"]}, "layer_types"),
        ("modernbert", {"local_attention": 0}, "local_attention"),
        ("modernbert", {"global_attn_every_n_layers": 0}, "global_attn_every_n_layers"),
        (
            "modernbert",
            {"rope_parameters": {"sliding_attention": {"rope_type": "linear", "factor": 2.0}}},
            "scaled",
        ),
        ("modernbert-sequence", {"classifier_pooling": "max"}, "classifier_pooling"),
        ("modernbert-sequence", {"classifier_activation": "relu"}, "classifier_activation"),
    ],
)
def test_configs_that_cannot_be(name: str, change: dict[str, Any], field: str) -> None:
    with pytest.raises(InputError, match=field) as caught:
        _read(encoders.MODELS[name] | change)
    assert str(caught.value).startswith("config.json: ")


@pytest.mark.parametrize(
    "change",
    [
        {"activation_function": "gelu"},
        {"moe_every_n_layers": 2},
        {"rotary_emb_fraction": 0.5},
        {"qkv_proj_bias": True},
        {"prenorm": True},
        {"rotary_emb_base": 0},
    ],
)
def test_nomics_first_config_that_cannot_be(change: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(change))):
        _read(encoders.NOMIC_FIRST | change)


@pytest.mark.parametrize(
    "name", ["bert-tokens", "xlm-roberta-tokens", "modernbert-tokens", "distilbert-sequence"]
)
def test_what_llama_cpp_cannot_do_is_refused_for_gguf(name: str, encoder_folder: Folder) -> None:
    rows = CheckpointRows(SourceModel.open(encoder_folder(name)))
    kind = "tokens" if name.endswith("tokens") else "sequences"
    with pytest.raises(InputError, match=rf"architectures: .* classifier of {kind}; ONNX has it"):
        rows.metadata()


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("bert", "block_count", 2**31),
        ("bert", "attention.head_count", 5),
        ("bert-sequence", "classifier.output_labels", ["only one"]),
        ("nomic_bert", "rope.dimension_count", 7),
        ("modernbert", "attention.sliding_window_pattern", [True]),
        ("modernbert", "hidden_activation", "silu"),
    ],
)
def test_metadata_that_cannot_be(name: str, key: str, value: Any) -> None:
    reader = _reader(encoders.MODELS[name], **{key: value})
    field = "embedding_length" if key == "attention.head_count" else key.split(".")[-1]
    with pytest.raises(InputError, match=field):
        families.for_architecture(reader.architecture, "").from_metadata(reader)


# Weights and config against each other.


@pytest.fixture
def changed(encoder_folder: Folder, tmp_path: Path) -> Callable[..., Path]:
    """(name, tensors changed in place by a function, **fields of the config) → a folder of its own."""

    def make(
        name: str, change: Callable[[dict[str, Any]], Any] = lambda tensors: None, **fields: Any
    ) -> Path:
        folder = tmp_path / "model"
        shutil.copytree(encoder_folder(name), folder)
        tensors = load_file(folder / "model.safetensors")
        change(tensors)
        save_file(tensors, folder / "model.safetensors")
        (folder / "config.json").write_text(json.dumps(encoders.MODELS[name] | fields))
        return folder

    return make


@pytest.mark.parametrize(
    ("name", "tensor"),
    [
        ("bert", "encoder.layer.1.attention.self.query.bias"),
        ("bert-sequence", "bert.pooler.dense.weight"),
        ("bert-sequence", "classifier.bias"),
        ("distilbert", "transformer.layer.0.ffn.lin2.weight"),
        ("nomic_bert", "emb_ln.weight"),
        ("modernbert-tokens", "head.norm.weight"),
    ],
)
def test_a_missing_tensor(name: str, tensor: str, changed: Callable[..., Path]) -> None:
    folder = changed(name, lambda tensors: tensors.pop(tensor))
    with pytest.raises(EdgeqError, match=rf"tensor {tensor.removeprefix('bert.')} is missing") as caught:
        SourceModel.open(folder)
    assert str(caught.value).startswith(str(folder))


@pytest.mark.parametrize(
    ("name", "fields", "tensor"),
    [
        ("bert", {"vocab_size": 319}, "word_embeddings.weight"),
        ("bert", {"max_position_embeddings": 255}, "position_embeddings.weight"),
        ("roberta", {"max_position_embeddings": 257}, "position_embeddings.weight"),
        ("roberta", {"type_vocab_size": 2}, "token_type_embeddings.weight"),
        ("bert-sequence", {"id2label": {"0": "yes", "1": "no"}}, "classifier.weight"),
        ("nomic_bert", {"intermediate_size": 95}, "mlp.fc11.weight"),
        ("modernbert", {"intermediate_size": 95}, "mlp.Wi.weight"),
    ],
)
def test_a_config_that_contradicts_the_weights(
    name: str, fields: dict[str, Any], tensor: str, changed: Callable[..., Path]
) -> None:
    folder = changed(name, **fields)
    with pytest.raises(EdgeqError, match=rf"{tensor} has shape .*, config\.json says") as caught:
        SourceModel.open(folder)
    assert str(caught.value).startswith(str(folder / "model.safetensors"))


def test_old_names_of_the_norms(changed: Callable[..., Path]) -> None:
    """As TensorFlow's checkpoints of BERT have them, and the first conversions of those."""

    def rename(tensors: dict[str, Any]) -> None:
        for name in [name for name in tensors if "LayerNorm." in name]:
            new = name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
                "LayerNorm.bias", "LayerNorm.beta"
            )
            tensors[new] = tensors.pop(name)

    model = engine.open_model(changed("bert", rename))
    golden = models.golden_logits("bert")
    assert np.abs(model.hidden(encoders.tokens("bert")) - golden).max() <= 1e-3 * np.ptp(golden)
