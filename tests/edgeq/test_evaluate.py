"""Encoders, classifiers and graphs through ``edgeq.evaluate``, on tiny random models."""

from __future__ import annotations

import json
import shutil

import heldout
import pytest

from edgeq.errors import FormatError, InputError, UsageError
from edgeq.evaluate import Request, run

pytest.importorskip("jsonschema")

LINES = heldout.sentences().test[:12]


@pytest.fixture
def sentences(tmp_path):
    path = tmp_path / "sentences.txt"
    path.write_text("\n".join(LINES))
    return path


def test_an_encoder_beside_its_checkpoint(encoder_folder, make_gguf, sentences) -> None:
    folder = encoder_folder("bert")
    record = run(Request(make_gguf(folder, "Q8_0"), sentences, folder, threads=1))
    answers = record["answers"]
    assert (record["kind"], answers["sentences"]) == ("encoder", len(LINES))
    assert answers["cosine_mean"] > 0.99
    assert 0 <= answers["overlap_1"] <= 1
    assert answers["spearman"] > 0.9
    assert record["cost"]["sentences_per_second"] > 0
    same = run(Request(folder, sentences, folder, speed=False, threads=1))
    assert same["answers"]["cosine_min"] == pytest.approx(1, abs=1e-6)
    assert "cost" not in same
    with pytest.raises(UsageError, match="give --reference"):
        run(Request(folder, sentences))
    assert run(Request(folder, sentences, folder, speed=False, layers=True, threads=1))["layers"] == []


def test_a_classifier_graph_of_no_known_family(encoder_folder, make_onnx, tmp_path) -> None:
    """Its labels are the config.json's, or numbers."""
    folder, graph, examples = (
        encoder_folder("bert-sequence"),
        tmp_path / "model.onnx",
        tmp_path / "examples.jsonl",
    )
    shutil.copyfile(make_onnx(folder, "float32"), graph)
    shutil.copyfile(folder / "tokenizer.json", tmp_path / "tokenizer.json")
    for config, label in (
        ({"id2label": {"0": "no", "1": "yes", "2": "so"}}, "yes"),
        ({}, "LABEL_2"),
        ({}, 1),
    ):
        (tmp_path / "config.json").write_text(json.dumps({"model_type": "unknown", **config}))
        examples.write_text("\n".join(json.dumps({"text": line, "label": label}) for line in LINES))
        record = run(Request(graph, examples, speed=False, threads=1))
        assert (record["kind"], record["answers"]["labelled"]) == ("classifier", len(LINES))


def test_a_classifier_with_labels(encoder_folder, tmp_path) -> None:
    folder = encoder_folder("bert-sequence")
    labels = ["bad", "so so", "good"]
    path = tmp_path / "examples.jsonl"
    path.write_text(
        "\n".join(json.dumps({"text": line, "label": labels[i % 3]}) for i, line in enumerate(LINES))
    )
    alone = run(Request(folder, path, speed=False, threads=1))["answers"]
    assert alone["labelled"] == len(LINES)
    assert alone["accuracy_low"] <= alone["accuracy"] <= alone["accuracy_high"]
    beside = run(Request(folder, path, folder, threads=1))["answers"]
    assert (beside["same_label"], beside["logit_difference"]) == (1, 0)
    assert beside["accuracy"] == beside["accuracy_float"] == alone["accuracy"]
    plain = tmp_path / "plain.txt"
    plain.write_text("\n".join(LINES))
    with pytest.raises(UsageError, match="have no labels"):
        run(Request(folder, plain))
    with pytest.raises(InputError, match="classifies tokens"):
        run(Request(encoder_folder("bert-tokens"), plain))


def test_a_graph_beside_the_checkpoint(tinylm, make_onnx, tmp_path) -> None:
    """A float graph is the model; a text of its own length is one window."""
    graph = tmp_path / "model.onnx"
    shutil.copyfile(make_onnx(tinylm, "float32"), graph)
    for name in ("config.json", "tokenizer.json"):
        shutil.copyfile(tinylm / name, tmp_path / name)
    text = tmp_path / "text.txt"
    text.write_text("import os\nprint(os.getcwd())\n" * 8)
    record = run(Request(graph, text, tinylm, threads=1))
    assert (record["kind"], record["engine"]) == ("decoder", "onnxruntime")
    assert record["answers"]["kl_max"] < 1e-5
    assert record["cost"]["decode_tokens_per_second"] > 0
    assert record["bytes"] == graph.stat().st_size
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(FormatError, match=r"tokenizer\.json"):
        run(Request(graph, text, tinylm))


def test_what_a_cache_type_costs_alone(tinylm, make_gguf, tmp_path) -> None:
    """The same file beside itself: keys and values in 8 bits are the only difference."""
    text = tmp_path / "text.txt"
    text.write_text("import os\nprint(os.getcwd())\n" * 40)
    path = make_gguf(tinylm, "Q4_K_M")
    options = {
        "data": text,
        "reference": path,
        "context": 64,
        "max_tokens": 192,
        "speed": False,
        "threads": 1,
    }
    assert run(Request(path, **options))["answers"]["kl_max"] < 1e-6
    eight = run(Request(path, cache_type="Q8_0", **options))
    assert 1e-7 < eight["answers"]["kl_mean"] < 1e-3
    assert eight["kv_type"] == "Q8_0"


def test_other_tokens_cannot_be_compared(tinylm, encoder_folder, oracle_folder, tmp_path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("import os\nprint(os.getcwd())\n" * 8)
    with pytest.raises(InputError, match="has other tokens than"):
        run(Request(tinylm, text, oracle_folder("gpt2"), speed=False))
    with pytest.raises(InputError, match="cannot be compared, encoder with decoder"):
        run(Request(tinylm, text, encoder_folder("bert"), speed=False))
