"""``edgeq inspect`` of the three things it reads."""

from __future__ import annotations

import json

import pytest

PARAMETERS = 5_770_496


def _json(done):
    assert (done.code, done.err) == (0, "")
    return json.loads(done.out)


def test_gguf(edgeq, exported):
    found = _json(edgeq("inspect", exported.gguf, "--json"))
    assert found["format"] == "gguf"
    assert found["file"] == str(exported.gguf)
    assert found["bytes"] == exported.gguf.stat().st_size
    assert found["parameters"] == PARAMETERS
    assert found["metadata"]["general.architecture"] == "llama"
    assert len(found["metadata"]["tokenizer.ggml.tokens"]) == 4096
    by_name = {tensor["name"]: tensor for tensor in found["tensors"]}
    assert by_name["blk.0.attn_q.weight"]["shape"] == [256, 256]
    assert by_name["blk.0.attn_q.weight"]["type_name"] == "Q4_K"
    assert sum(count for count, _ in found["by_type"].values()) == len(found["tensors"])
    assert sum(size for _, size in found["by_type"].values()) == sum(t["nbytes"] for t in found["tensors"])


@pytest.mark.parametrize("quant", ["float32", "int8"])
def test_onnx(edgeq, exported, floats, quant):
    path = exported.onnx if quant == "int8" else floats.onnx
    found = _json(edgeq("inspect", path, "--json"))
    assert found["format"] == "onnx"
    assert any(text.startswith("input_ids ") for text in found["metadata"]["inputs"])
    assert any(text.startswith("past_key_values.0.key ") for text in found["metadata"]["inputs"])
    assert any(text.startswith("logits ") for text in found["metadata"]["outputs"])
    assert ("int8" in found["by_type"]) == (quant == "int8")
    assert found["parameters"] == pytest.approx(PARAMETERS, rel=0.02)


def test_checkpoint_directory(edgeq, tinylm):
    found = _json(edgeq("inspect", tinylm, "--json"))
    assert (found["format"], found["parameters"]) == ("safetensors", PARAMETERS)
    assert found["metadata"]["model_type"] == "llama"
    assert list(found["by_type"]) == ["bfloat16"]


@pytest.mark.parametrize("which", ["gguf", "onnx", "directory"])
def test_for_people(edgeq, exported, tinylm, which):
    path = {"gguf": exported.gguf, "onnx": exported.onnx, "directory": tinylm}[which]
    done = edgeq("inspect", path)
    assert (done.code, done.err) == (0, "")
    assert f"file        {path}, " in done.out
    assert max(map(len, done.out.splitlines())) < 400  # no vocabulary poured out
    for head in ("tensor", "type"):
        assert any(line.startswith(f"{head} ") for line in done.out.splitlines())
