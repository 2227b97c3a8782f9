"""Encoders on the command line: what an export of a classifier says, and one line for each thing that is wrong."""

from __future__ import annotations

import base64
import json
import shutil

import pytest
from bad_input import change_weights, edit
from oracle import encoder_tokenizers, encoders, models


@pytest.fixture
def encoder(tmp_path):
    """A tiny encoder of the oracle, in a folder of its own to damage."""

    def make(name):
        folder = tmp_path / name
        folder.mkdir()
        models.write_checkpoint(folder, name, models.stored_shapes()[name], encoders.MODELS[name])
        encoder_tokenizers.write(folder, encoders.MODELS[name]["model_type"], models.VOCAB)
        return folder

    return make


@pytest.mark.parametrize(
    ("name", "to", "quant", "file"),
    [
        ("xlm-roberta-sequence", "gguf", "F16", "model-F16.gguf"),
        ("distilbert-sequence", "onnx", "float32", "model.onnx"),
    ],
)
def test_a_classifier(edgeq, encoder, tmp_path, name, to, quant, file):
    text = tmp_path / "text.txt"
    text.write_text("the rat sat on the mat\nand the cat ran\n")
    folder, out = encoder(name), tmp_path / "out"
    done = edgeq("export", folder, "--to", to, "-q", quant, "-o", out, "--threads", 1, "--calibration", text)
    assert done.code == 0, done.err
    assert (out / file).is_file()
    assert "logits to float" in done.out
    assert ("same best label  100.0%" in done.out) is (name != "xlm-roberta-sequence")
    (record,) = json.loads((out / "edgeq.json").read_text())["exports"]
    assert record["proof"]["logit_difference"] < 2e-2  # of the small range of two sentences
    if to == "onnx":  # an application finds the labels beside the graph
        assert json.loads((out / "config.json").read_text())["id2label"]["2"] == "good"


def test_a_classifier_from_gguf_to_onnx(edgeq, encoder, tmp_path):
    """Its labels come along."""
    text = tmp_path / "text.txt"
    text.write_text("the rat sat on the mat\nand the cat ran\n")
    done = edgeq(
        "export", encoder("modernbert-sequence"), "--to", "gguf", "-q", "F16", "-o", tmp_path, "--no-proof"
    )
    assert done.code == 0, done.err
    done = edgeq("export", tmp_path / "model-F16.gguf", "--to", "onnx", "-q", "float32", "-o", tmp_path / "out",
                 "--threads", 1, "--calibration", text)  # fmt: skip
    assert done.code == 0, done.err
    (record,) = json.loads((tmp_path / "out/edgeq.json").read_text())["exports"]
    assert record["proof"]["logit_difference"] < 1e-3
    assert json.loads((tmp_path / "out/config.json").read_text())["id2label"] == {
        "0": "bad",
        "1": "so so",
        "2": "good",
    }


def test_tensors_that_are_left_out_are_named(edgeq, encoder, tmp_path):
    for to, quant in (("gguf", "F16"), ("onnx", "float32")):
        done = edgeq("export", encoder("bert") if to == "gguf" else tmp_path / "bert", "--to", to, "-q", quant, "-o",
                     tmp_path / to, "--no-proof")  # fmt: skip
        assert "left out: pooler.dense.bias, pooler.dense.weight" in done.err


def test_a_classifier_that_gguf_has_not(refused, encoder, tmp_path):
    folder = encoder("bert-tokens")
    line = refused(
        "export", folder, "--to", "gguf", "-q", "F16", "-o", tmp_path / "out", names="architectures"
    )
    assert "ONNX has it (--to onnx)" in line


def test_a_config_that_contradicts_the_weights(refused, encoder, tmp_path):
    folder = encoder("roberta")
    edit(folder / "config.json", max_position_embeddings=130)
    line = refused("export", folder, "--to", "onnx", "-q", "int8", "-o", tmp_path / "out", names=folder)
    assert "embeddings.position_embeddings.weight has shape [258, 64], config.json says [130, 64]" in line


def test_a_missing_tensor(refused, encoder, tmp_path):
    folder = encoder("modernbert")
    change_weights(folder, lambda tensors: tensors.pop("layers.2.attn.Wqkv.weight"))
    line = refused("export", folder, "--to", "gguf", "-q", "F16", "-o", tmp_path / "out", names=folder)
    assert "tensor layers.2.attn.Wqkv.weight is missing" in line


def test_a_hole_in_the_tokenizers_ids(refused, encoder, tmp_path):
    folder = encoder("xlm-roberta")
    file = folder / "tokenizer.json"
    described = json.loads(file.read_text("utf-8"))
    described["added_tokens"].append(described["added_tokens"][0] | {"id": 330, "content": "<new>"})
    file.write_text(json.dumps(described), "utf-8")
    line = refused("export", folder, "--to", "gguf", "-q", "F16", "-o", tmp_path / "out", names=file)
    assert "added_tokens[5] ('<new>') has id 330" in line


@pytest.mark.parametrize(("to", "quant"), [("gguf", "F16"), ("onnx", "int8")])
def test_a_damaged_table_of_the_tokenizer(refused, encoder, tmp_path, to, quant):
    folder = encoder("xlm-roberta")
    file = folder / "tokenizer.json"
    table = base64.b64encode(b"\0\4\0\0" + bytes(1024)).decode()
    edit(file, normalizer={"type": "Precompiled", "precompiled_charsmap": table})
    line = refused("export", folder, "--to", to, "-q", quant, "-o", tmp_path / "out", names=file)
    assert "normalizer.precompiled_charsmap says a trie of 1024 bytes" in line


def test_a_module_that_is_not_exported(refused, encoder, tmp_path):
    folder = encoder("bert")
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling/config.json").write_text(json.dumps({"pooling_mode_mean_tokens": True}))
    listed = [{"type": f"sentence_transformers.models.{kind}", "path": path}
              for kind, path in (("Transformer", ""), ("Pooling", "1_Pooling"), ("LSTM", "2_LSTM"))]  # fmt: skip
    (folder / "modules.json").write_text(json.dumps(listed))
    line = refused("export", folder, "--to", "onnx", "-q", "float32", "-o", tmp_path / "out",
                   names=folder / "modules.json")  # fmt: skip
    assert "module 2 is a LSTM" in line
    shutil.rmtree(folder / "1_Pooling")
    listed.pop()
    (folder / "modules.json").write_text(json.dumps(listed))
    refused(
        "export", folder, "--to", "gguf", "-q", "F16", "-o", tmp_path / "out", names="1_Pooling/config.json"
    )


def test_generating_with_an_encoder(refused, encoder):
    assert "is an encoder" in refused("run", encoder("modernbert"), "-p", "hi", names="modernbert")
