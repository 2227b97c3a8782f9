"""What is wrong with a model directory or the text to calibrate on: one line, nothing left behind."""

from __future__ import annotations

import json

import numpy as np
import packed_checkpoints as packed
import pytest
from bad_input import BOTH, EXPORTS, change_weights, edit, is_one_line
from safetensors.numpy import load_file, save_file


@BOTH
def test_truncated_safetensors(refused, model, to, quant):
    file = model / "model.safetensors"
    content = file.read_bytes()
    file.unlink()
    file.write_bytes(content[:-1000])
    line = refused("export", model, "--to", to, "-q", quant, "-o", model / "out", names=file)
    assert "truncated" in line


def test_missing_weights(refused, model):
    (model / "model.safetensors").unlink()
    refused("export", model, "--to", "gguf", "-q", "F16", "-o", model / "out", names=model)
    refused("inspect", model, names=model)
    refused("run", model, "-p", "hi", names=model)


@pytest.mark.parametrize("cut", [None, 4, 5000])
def test_missing_or_truncated_shard(refused, model, cut):
    tensors = load_file(model / "model.safetensors")
    (model / "model.safetensors").unlink()
    names = sorted(tensors)
    shards = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for shard, part in shards.items():
        save_file({name: tensors[name] for name in part}, model / shard)
    index = {"weight_map": {name: shard for shard, part in shards.items() for name in part}}
    (model / "model.safetensors.index.json").write_text(json.dumps(index))
    last = model / list(shards)[1]
    if cut is None:
        last.unlink()
    else:
        last.write_bytes(last.read_bytes()[:cut])
    refused("export", model, "--to", "gguf", "-q", "F16", "-o", model / "out", names=last.name)


@pytest.mark.parametrize(
    ("model_type", "nearest"),
    [
        (None, ""),
        ("llamma", "nearest: llama"),
        ("qwen2_5", "nearest: qwen2"),
        ("modern_bert", "nearest: modernbert"),
        ("t5", "edgeq[optimum]"),
        (["llama"], ""),
        (7, ""),
    ],
)
def test_model_type(refused, model, model_type, nearest):
    edit(model / "config.json", model_type=model_type)
    line = refused(
        "export", model, "--to", "gguf", "-q", "F16", "-o", model / "out", names=model / "config.json"
    )
    assert nearest in line
    assert "bert, camembert, distilbert, gemma2, gemma3, gemma3_text, gpt2, granite, llama, mistral" in line


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", '{"model_type": "llama"', "[" * 100_000, "\xff", "9" * 5000]
)
def test_config_that_is_no_json_object(refused, model, text):
    (model / "config.json").write_text(text, "latin-1")
    refused("export", model, "--to", "gguf", "-q", "F16", "-o", model / "out", names=model / "config.json")


def test_no_config(refused, model):
    (model / "config.json").unlink()
    refused("export", model, "--to", "gguf", "-q", "F16", "-o", model / "out", names="config.json")


@pytest.mark.parametrize("value", ["6", -1, 0, 2.5, True, [6], {}, 10**9, 2**31, 2**63, 10**400])
@pytest.mark.parametrize("key", ["num_hidden_layers", "hidden_size", "num_attention_heads", "vocab_size"])
def test_config_values_that_cannot_be(refused, model, key, value):
    edit(model / "config.json", **{key: value}, head_dim=None)
    refused("export", model, "--to", "gguf", "-q", "F16", "-o", model / "out", names=model, below=5)


@pytest.mark.parametrize("value", ["x", -1.0, 0, float("inf"), float("nan"), True, [1], 10**400])
@pytest.mark.parametrize("key", ["rms_norm_eps", "rope_theta"])
def test_config_numbers_that_cannot_be(refused, model, key, value):
    edit(model / "config.json", **{key: value})
    refused("export", model, "--to", "gguf", "-q", "F16", "-o", model / "out", names=key)


@pytest.mark.parametrize(
    "scaling",
    ["linear", [1], 3, {"rope_type": "yarn"}, {"rope_type": ["linear"]}, {"rope_type": "linear"},
     {"rope_type": "linear", "factor": "2"}, {"rope_type": "linear", "factor": 10**400},
     {"rope_type": "llama3", "factor": 8, "low_freq_factor": 4, "high_freq_factor": 1,
      "original_max_position_embeddings": 8192}],
)  # fmt: skip
def test_rope_scaling_that_cannot_be(refused, model, scaling):
    edit(model / "config.json", rope_scaling=scaling)
    refused("export", model, "--to", "gguf", "-q", "F16", "-o", model / "out", names="rope_scaling")


def test_a_huge_context_allocates_nothing(edgeq, model):
    edit(model / "config.json", max_position_embeddings=2**31 - 1)
    for to, quant in (("gguf", "Q4_0"), ("onnx", "float32")):
        done = edgeq("export", model, "--to", to, "-q", quant, "-o", model / "out", "--no-proof")
        assert done.code == 0, done.err
    for name in ("model-Q4_0.gguf", "model.onnx"):
        assert edgeq("run", model / "out" / name, "-p", "hi", "-n", 2).code == 0


@BOTH
def test_tensor_of_the_wrong_shape(refused, model, to, quant):
    name = "model.layers.3.mlp.up_proj.weight"
    change_weights(model, lambda tensors: tensors.update({name: tensors[name][:-1]}))
    line = refused("export", model, "--to", to, "-q", quant, "-o", model / "out", names=model)
    assert name in line
    assert "[767, 256]" in line
    assert "[768, 256]" in line


@BOTH
def test_missing_tensor(refused, model, to, quant):
    name = "model.layers.5.self_attn.k_proj.weight"
    change_weights(model, lambda tensors: tensors.pop(name))
    line = refused("export", model, "--to", to, "-q", quant, "-o", model / "out", names=model)
    assert "layers.5.self_attn.k_proj.weight" in line


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize(
    ("to", "quant"), [*EXPORTS, ("gguf", "F32"), ("onnx", "float32"), ("onnx", "int8-dynamic")]
)
def test_weights_that_are_no_numbers(refused, model, to, quant, value):
    name = "model.layers.2.mlp.down_proj.weight"

    def damage(tensors):
        tensors[name] = tensors[name].copy()
        tensors[name][5, 7] = value

    change_weights(model, damage)
    line = refused("export", model, "--to", to, "-q", quant, "-o", model / "out", names=model)
    assert name in line


def test_weights_that_are_no_numbers_in_run(edgeq, model):
    change_weights(
        model, lambda tensors: tensors.update({"model.norm.weight": tensors["model.norm.weight"] * np.nan})
    )
    done = edgeq("run", model, "-p", "hi", "--temp", 1)
    assert (done.code, done.out) == (1, "hi")
    is_one_line(done.err)
    assert str(model) in done.err


@pytest.mark.parametrize(
    "path", ["../../etc", "/etc", "..", "a\0b", "x" * 300, ["1_Pooling"]], ids=lambda path: repr(path)[:12]
)
def test_modules_json_that_leaves_the_folder(refused, model, path):
    (model / "modules.json").write_text(json.dumps([{"type": "x.Pooling", "path": path}]))
    refused("export", model, "--to", "gguf", "-q", "F16", "-o", model / "out", names=model)


# Tokenizers.


@pytest.mark.parametrize(
    "text", [None, "", "{}", "[1]", '{"model": {"type": "BPE"}}', "\xff\xfe", "[" * 100_000]
)
@BOTH
def test_tokenizer_json(refused, model, to, quant, text):
    file = model / "tokenizer.json"
    file.unlink()
    if text is not None:
        file.write_text(text, "latin-1")
    refused("export", model, "--to", to, "-q", quant, "-o", model / "out", names=file)
    refused("run", model, "-p", "hi", names=file)


@pytest.mark.parametrize("value", ["</s>", [[1]], [None], 1.5, True, {}])
def test_end_tokens_that_are_none(refused, model, value):
    file = model / "generation_config.json"
    edit(file, eos_token_id=value)
    refused("run", model, "-p", "hi", names=file)


# The text to calibrate on.


@pytest.mark.parametrize(
    ("content", "said"), [(b"", "empty"), (b" \n\t\r\n", "empty"), (b"caf\xe9", "UTF-8"), (None, "")]
)
@BOTH
def test_calibration_file(refused, tinylm, tmp_path, to, quant, content, said):
    file = tmp_path / "text.txt"
    if content is not None:
        file.write_bytes(content)
    line = refused(
        "export", tinylm, "--to", to, "-q", quant, "-o", tmp_path / "out", "--calibration", file, names=file
    )
    assert said in line


def test_calibration_is_a_folder(refused, tinylm, tmp_path):
    out = tmp_path / "out"
    refused(
        "export", tinylm, "--to", "gguf", "-q", "F16", "-o", out, "--calibration", tmp_path, names=tmp_path
    )


@BOTH
@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda parts: parts.pop("scales"), "self_attn.o_proj.scales is missing"),
        (lambda parts: parts["g_idx"].fill(9), "self_attn.q_proj.g_idx holds 9, but there are 8 groups"),
        (lambda parts: parts["scales"].fill(np.inf), "self_attn.q_proj.weight holds NaN or infinity"),
    ],
)
def test_quantized_weights_that_contradict(refused, tmp_path, to, quant, change, problem):
    """Seen when the folder is opened, or only in the midst of a file that is then not there."""
    folder = tmp_path / "gptq"
    settings = {"quant_method": "gptq", "bits": 4, "group_size": 32}

    def pack(weight):
        parts, values = packed.gptq(weight)
        if weight.shape == (256, 256):  # queries and outputs
            change(parts)
        return parts, values

    packed.write(folder, settings, pack)
    assert problem in refused("export", folder, "--to", to, "-q", quant, "-o", tmp_path / "out", names=folder)


def test_layout_that_is_not_known(refused, model):
    edit(model / "config.json", quantization_config={"quant_method": "hqq"})
    line = refused(
        "export", model, "--to", "gguf", "-q", "F16", "-o", model / "out", names=model / "config.json"
    )
    assert "awq, bitsandbytes, fp8, fbgemm_fp8, compressed-tensors, gptq" in line
