"""The dialects of ONNX decoders: names, operators, files, and onnxruntime-genai where it is installed."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from oracle import models
from typer.testing import CliRunner

from edgeq import export
from edgeq.cli import app
from edgeq.convert import onnx_graph
from edgeq.evaluation.runtimes import OnnxRuntime
from edgeq.gguf_source import GGUFSource
from edgeq.runtimes.onnxruntime import OnnxSession
from edgeq.source import SourceModel

MakeOnnx = Callable[..., Path]
STEPS = 24


def operators(path: Path) -> Counter[str]:
    return Counter(node.op_type for node in onnx.load(path).graph.node)


def test_the_operators_of_a_llama(tinylm: Path, make_onnx: MakeOnnx) -> None:
    hp = SourceModel.open(tinylm).hp
    layers = hp.n_layers
    standard = operators(make_onnx(tinylm, "float32"))
    assert (standard["Attention"], standard["RMSNormalization"]) == (layers, 2 * layers + 1)
    assert standard["RotaryEmbedding"] == 2 * layers
    assert standard["Softmax"] == standard["ReduceMean"] == 0
    own = operators(make_onnx(tinylm, "int4", dialect="ort"))
    assert (own["GroupQueryAttention"], own["MatMulNBits"]) == (layers, 5 * layers + 1)
    assert (own["SkipSimplifiedLayerNormalization"], own["SimplifiedLayerNormalization"]) == (2 * layers, 1)
    assert (own["GatherBlockQuantized"], own["QuickGelu"], own["MatMul"]) == (1, layers, 0)


def test_capped_scores_are_left_to_no_attention(
    oracle_folder: Callable[[str], Path], make_onnx: MakeOnnx
) -> None:
    """ONNX Runtime 1.23 and 1.24 cap the mask, too."""
    standard = operators(make_onnx(oracle_folder("gemma2"), "float32"))
    assert (standard["Attention"], standard["Softmax"]) == (0, 4)


@pytest.mark.parametrize("name", models.MODELS)
def test_the_checker_accepts_the_standard_dialect(
    name: str, oracle_folder: Callable[[str], Path], make_onnx: MakeOnnx
) -> None:
    model = onnx.load(make_onnx(oracle_folder(name), "float32"))
    onnx.checker.check_model(model, full_check=True)
    assert {node.domain for node in model.graph.node} == {""}


def test_both_dialects_have_the_same_inputs_and_outputs(tinylm: Path, make_onnx: MakeOnnx) -> None:
    sessions = [OnnxSession(make_onnx(tinylm, "float32", dialect=name), 1) for name in ("standard", "ort")]
    assert sessions[0].inputs == sessions[1].inputs
    assert sessions[0].outputs == sessions[1].outputs


def test_queries_keys_and_values_are_packed_where_nothing_stands_between(
    oracle_folder: Callable[[str], Path], make_onnx: MakeOnnx
) -> None:
    """GPT-2 has them in one matrix anyway, and no rope: the attention reads the product itself."""
    graph = onnx.load(make_onnx(oracle_folder("gpt2"), "float32", dialect="ort")).graph
    for node in graph.node:
        if node.op_type == "GroupQueryAttention":
            assert all(node.input[:1])
            assert [bool(name) for name in node.input[:3]] == [True, True, True]
    smollm3 = onnx.load(make_onnx(oracle_folder("smollm3"), "float32", dialect="ort")).graph
    packed = [not node.input[1] for node in smollm3.node if node.op_type == "GroupQueryAttention"]
    assert packed == [False, False, False, True]  # the fourth layer has no rope


@pytest.mark.parametrize("dialect", ["standard", "ort"])
@pytest.mark.parametrize("external", [False, True])
def test_tied_tables_are_stored_once(tmp_path: Path, tinylm: Path, dialect: str, external: bool) -> None:
    request = export.Request(
        tinylm,
        "onnx",
        "int4",
        tmp_path,
        dialect=dialect,
        proof=False,
        external_from="1M" if external else None,
    )
    result = export.run(request)
    graph = onnx.load(result.path, load_external_data=False).graph
    data = tmp_path / "model_q4.onnx_data"
    assert data.exists() == external
    sizes = {tensor.name: int(np.prod(tensor.dims)) for tensor in graph.initializer}
    hp = SourceModel.open(tinylm).hp
    assert sum(size >= hp.vocab * hp.hidden for size in sizes.values()) == 1
    if external:
        places = {
            t.name: {e.key: e.value for e in t.external_data} for t in graph.initializer if t.external_data
        }
        assert {place["location"] for place in places.values()} == {data.name}
        assert all(int(place["offset"]) % 64 == 0 for place in places.values())
        large = [place for place in places.values() if int(place["length"]) >= 1 << 20]
        assert large
        assert all(int(place["offset"]) % 65536 == 0 for place in large)
    assert set(result.record["sha256"]) == {file.name for file in result.files if ".onnx" in file.name}
    assert OnnxRuntime(result.path, "none", 1).window([1, 2, 3]).shape == (3, hp.vocab)


@pytest.mark.parametrize("dialect", ["standard", "ort"])
def test_onnx_runtime_multiplies_every_matrix_in_blocks(
    tmp_path: Path, tinylm: Path, make_onnx: MakeOnnx, dialect: str
) -> None:
    """The tied head, too: none is dequantized at every run."""
    options = ort.SessionOptions()
    options.log_severity_level, options.optimized_model_filepath = 3, str(tmp_path / "optimized.onnx")
    path = str(make_onnx(tinylm, "int4", dialect=dialect))
    ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    after = operators(tmp_path / "optimized.onnx")
    layers = SourceModel.open(tinylm).hp.n_layers
    assert after["MatMulNBits"] == (7 if dialect == "standard" else 5) * layers + 1
    assert after["DequantizeLinear"] == after["MatMul"] == after["Transpose"] == 0


def test_blocks_answer_as_the_weights_they_stand_for(
    tmp_path: Path, tinylm: Path, make_gguf: Callable[..., Path], code_tokens: list[int]
) -> None:
    """The same Q4_0 file as a float graph and as blocks with float activations."""
    from edgeq.formats.onnx.save import save_model

    path, tokens = make_gguf(tinylm, "Q4_0"), code_tokens[:64]
    save_model(onnx_graph.build(GGUFSource.open(path)), tmp_path / "float.onnx", force=False)
    expected = OnnxRuntime(tmp_path / "float.onnx", "none", 1).window(tokens)
    request = export.Request(path, "onnx", "int4", tmp_path, dialect="ort", accuracy_level=1, proof=False)
    got = OnnxRuntime(export.run(request).path, "none", 1).window(tokens)
    assert np.abs(got - expected).max() <= 1e-4 * np.ptp(expected)


def test_genai_config(tmp_path: Path, tinylm: Path) -> None:
    export.run(export.Request(tinylm, "onnx", "int4", tmp_path, dialect="ort", proof=False))
    config: dict[str, Any] = json.loads((tmp_path / "genai_config.json").read_text())
    hp, decoder = SourceModel.open(tinylm).hp, config["model"]["decoder"]
    graph = onnx.load(tmp_path / decoder["filename"]).graph
    names = {value.name for value in (*graph.input, *graph.output)}
    for key, name in (decoder["inputs"] | decoder["outputs"]).items():
        assert (name % 0 if "%d" in name else name) in names, key
    assert (decoder["head_size"], decoder["num_hidden_layers"]) == (hp.head_dim, hp.n_layers)
    assert config["search"]["max_length"] == config["model"]["context_length"] == hp.context


def test_the_standard_dialect_has_no_genai_config(tmp_path: Path, tinylm: Path) -> None:
    export.run(export.Request(tinylm, "onnx", "int4", tmp_path, proof=False))
    assert not (tmp_path / "genai_config.json").exists()


@pytest.mark.parametrize("quant", ["float32", "int4"])
def test_onnxruntime_genai_generates_the_same_tokens(tmp_path: Path, tinylm: Path, quant: str) -> None:
    genai = pytest.importorskip("onnxruntime_genai")
    result = export.run(export.Request(tinylm, "onnx", quant, tmp_path, dialect="ort", proof=False))
    prompt = SourceModel.open(tinylm).tokenizer().encode("def main(").ids
    runtime = OnnxRuntime(result.path, "none", threads=1)
    logits, expected = runtime.window(prompt)[-1], []
    for _ in range(STEPS):
        expected.append(int(logits.argmax()))
        logits = runtime.step(expected[-1])
    model = genai.Model(str(tmp_path))
    parameters = genai.GeneratorParams(model)
    parameters.set_search_options(max_length=len(prompt) + STEPS, do_sample=False)
    generator = genai.Generator(model, parameters)
    generator.append_tokens(np.array(prompt, np.int32))
    got = []
    while not generator.is_done():
        generator.generate_next_token()
        got.append(int(generator.get_next_tokens()[0]))
    assert got == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--to", "gguf", "--quant", "Q8_0", "--dialect", "ort"], "--dialect goes with --to onnx"),
        (["--to", "gguf", "--quant", "Q8_0", "--external-from", "1M"], "--external-from goes with --to onnx"),
        (["--to", "onnx", "--quant", "float32", "--block-size", "32"], "--block-size goes with"),
        (["--to", "onnx", "--quant", "int8", "--asymmetric"], "--asymmetric goes with"),
        (["--to", "onnx", "--quant", "int4", "--block-size", "24"], "--block-size 24: must be one of 16, 32"),
        (["--to", "onnx", "--quant", "int4", "--tied-bits", "2"], "--tied-bits 2: must be one of 4, 8"),
        (
            ["--to", "onnx", "--quant", "int4", "--accuracy-level", "1"],
            "--accuracy-level goes with --dialect ort",
        ),
        (
            ["--to", "onnx", "--quant", "int4", "--dialect", "ort", "--accuracy-level", "2"],
            "--accuracy-level 2: must be one of 1, 4",
        ),
        (
            ["--to", "onnx", "--quant", "int4", "--external-from", "big"],
            "--external-from 'big': a size must be",
        ),
    ],
)
def test_options_that_do_not_fit(tmp_path: Path, tinylm: Path, options: list[str], message: str) -> None:
    result = CliRunner().invoke(app, ["export", str(tinylm), *options, "-o", str(tmp_path / "out")])
    assert result.exit_code != 0
    assert message in str(result.exception)
    assert not (tmp_path / "out").exists()
