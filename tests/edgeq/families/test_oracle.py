"""Every decoder family against transformers' logits of 128 tokens: the engine, the GGUF file and the ONNX graph.

``make oracle`` makes the golden logits. The figures behind each bar: ``pytest -rP``.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import llama_probe
import numpy as np
import pytest
from numpy.typing import NDArray
from oracle import models

from edgeq.calibration.importance import ImportanceCollector
from edgeq.calibration.text import Text
from edgeq.convert.dialects import DIALECTS
from edgeq.engine import model as engine
from edgeq.evaluation.metrics import Divergence
from edgeq.evaluation.runtimes import OnnxRuntime
from edgeq.families.base import BY_MODEL_TYPE
from edgeq.formats.gguf.reader import GGUFFile
from edgeq.inspection.gguf_check import check_gguf
from edgeq.runtimes.onnxruntime import OnnxSession
from edgeq.source import SourceModel

FLOAT_DIALECTS = ("standard", "ort")  # cuda's float32 graph is the standard one
MOST_DIFFERENCE = 1e-3  # of the logits' range
LEAST_TOP1_AGREEMENT, MOST_KL = 0.99, 1e-3
# The ranges of static int8 come from other tokens than those that are read.
MOST_INT8_KL, MOST_DYNAMIC_KL = 0.2, 0.02
MOST_BLOCK_KL = 0.005
# llama.cpp's graphs of these have no sliding window, so they agree for as many tokens as it has.
WINDOW_ONLY_HERE = {"mistral": 40, "qwen2-window": 50}

OracleFolder = Callable[[str], Path]
MakeGGUF = Callable[[Path, str], Path]
MakeOnnx = Callable[..., Path]


def test_every_decoder_family_is_here() -> None:
    decoders = {family for family in BY_MODEL_TYPE.values() if family.kind == "decoder"}
    assert {BY_MODEL_TYPE[str(config["model_type"])] for config in models.MODELS.values()} == decoders


@pytest.mark.parametrize("name", models.MODELS)
def test_engine(name: str, oracle_folder: OracleFolder) -> None:
    source = SourceModel.open(oracle_folder(name))
    assert source.unused == []
    model, tokens = engine.from_source(source), models.tokens()
    _agree("engine", name, model.logits(tokens))
    cache = model.new_cache(len(tokens))
    parts = [tokens[:50], tokens[50:51], tokens[51:]]
    _agree("engine in parts", name, np.concatenate([model.logits(part, cache) for part in parts]))
    streamed = engine.from_source(source, keep=False)
    _agree("engine, streamed", name, streamed.logits(tokens))


@pytest.mark.parametrize("name", models.MODELS)
def test_the_check_finds_nothing(name: str, oracle_folder: OracleFolder, make_gguf: MakeGGUF) -> None:
    assert check_gguf(make_gguf(oracle_folder(name), "F16"), lambda stage, done, total: None) == []


@pytest.mark.parametrize("name", models.MODELS)
def test_gguf_in_llama_cpp(name: str, oracle_folder: OracleFolder, make_gguf: MakeGGUF) -> None:
    pytest.importorskip("llama_cpp")
    tokens = models.tokens()[: WINDOW_ONLY_HERE.get(name)]
    context = models.MODELS[name].get("max_position_embeddings") or models.MODELS[name]["n_positions"]
    logits, warnings = llama_probe.probe(make_gguf(oracle_folder(name), "F16"), context, tokens)
    divergence = Divergence()
    divergence.add(models.golden_logits(name)[: len(tokens)], logits, tokens)
    summary = divergence.summary()
    print(name, {key: round(float(value), 7) for key, value in summary.items()})
    assert warnings == []
    assert summary["top1_agreement"] >= LEAST_TOP1_AGREEMENT
    assert summary["kl_mean"] <= MOST_KL


@pytest.mark.parametrize("name", models.MODELS)
def test_gguf_in_the_engine(name: str, oracle_folder: OracleFolder, make_gguf: MakeGGUF) -> None:
    """What the metadata say, and how the tensors lie, read back."""
    with GGUFFile.open(make_gguf(oracle_folder(name), "F32")) as file:
        model = engine.from_gguf(file)
        _agree("GGUF", name, model.logits(models.tokens()))


@pytest.mark.parametrize("dialect", FLOAT_DIALECTS)
@pytest.mark.parametrize("name", models.MODELS)
def test_onnx(name: str, dialect: str, oracle_folder: OracleFolder, make_onnx: MakeOnnx) -> None:
    tokens = models.tokens()
    path = make_onnx(oracle_folder(name), "float32", dialect=dialect)
    runtime = OnnxRuntime(path, "none", threads=1)
    _agree(f"ONNX, {dialect}", name, runtime.window(tokens))
    first = runtime.window(tokens[:100])
    steps = [runtime.step(token) for token in tokens[100:]]
    _agree(f"ONNX in steps, {dialect}", name, np.concatenate([first, steps]))


@pytest.mark.parametrize("dialect", FLOAT_DIALECTS)
@pytest.mark.parametrize("name", models.MODELS)
def test_onnx_batch_with_left_padding(
    name: str, dialect: str, oracle_folder: OracleFolder, make_onnx: MakeOnnx
) -> None:
    if models.MODELS[name].get("rope_scaling", {}).get("type") == "longrope":
        pytest.skip("the padded width, not the text's own, picks LongRope's factors, as in transformers")
    session = OnnxSession(make_onnx(oracle_folder(name), "float32", dialect=dialect), threads=1)
    sequences = [models.tokens()[:70], models.tokens()[70:115]]
    ids, mask = np.zeros((2, 70), np.int64), np.zeros((2, 70), np.int64)
    for row, sequence in enumerate(sequences):
        ids[row, -len(sequence) :], mask[row, -len(sequence) :] = sequence, 1
    positions = np.maximum(mask.cumsum(axis=1) - 1, 0)
    past = {key: value.repeat(2, axis=0) for key, value in session.empty_past().items()}
    feeds = {"input_ids": ids, "attention_mask": mask, "position_ids": positions} | past
    logits = session.run(feeds, ["logits"])[0]
    model = engine.open_model(oracle_folder(name))
    for row, sequence in enumerate(sequences):
        expected = model.logits(sequence)
        assert np.abs(logits[row, -len(sequence) :] - expected).max() <= MOST_DIFFERENCE * np.ptp(expected)


@pytest.mark.parametrize("name", ["mixtral", "qwen3_moe"])
def test_importance_of_experts(name: str, oracle_folder: OracleFolder, make_gguf: MakeGGUF) -> None:
    """Each expert counts the tokens that chose it; the matrix fits llama.cpp's and the encoder's shape."""
    model, tokens = engine.open_model(oracle_folder(name)), models.tokens()
    collector = ImportanceCollector()
    collector.read(model, tokens)
    entries = collector.matrix("text", 64).entries
    for i in range(model.hp.n_layers):
        for role in ("gate", "up", "down"):
            entry = entries[f"blk.{i}.ffn_{role}_exps.weight"]
            columns = model.hp.expert_ffn if role == "down" else model.hp.hidden
            assert entry.sums.shape == (model.hp.n_experts, columns)
            assert entry.counts.sum() == len(tokens) * model.hp.n_experts_used
        every = entries[f"blk.{i}.ffn_gate_inp.weight"].sums[0] * model.hp.n_experts_used
        np.testing.assert_allclose(entries[f"blk.{i}.ffn_up_exps.weight"].sums.sum(axis=0), every, rtol=1e-5)


@pytest.mark.parametrize("name", ["gemma2", "phi3", "mixtral", "gpt2"])
@pytest.mark.parametrize("quant", ["int8", "int8-dynamic"])
@pytest.mark.parametrize("dialect", FLOAT_DIALECTS)
def test_int8(name: str, quant: str, dialect: str, oracle_folder: OracleFolder, make_onnx: MakeOnnx) -> None:
    """Every linear layer, experts and fused ones among them, is found and answers much like the float model."""
    text = Text("rhyme", "the cat sat on the mat and the rat ran to the hat " * 20)
    runtime = OnnxRuntime(make_onnx(oracle_folder(name), quant, text, dialect=dialect), "none", threads=1)
    divergence = Divergence()
    divergence.add(models.golden_logits(name), runtime.window(models.tokens()), models.tokens())
    summary = divergence.summary()
    print(name, quant, dialect, summary["kl_mean"])
    assert summary["kl_mean"] <= (MOST_INT8_KL if quant == "int8" else MOST_DYNAMIC_KL)


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("name", models.MODELS)
def test_blocks(name: str, dialect: str, oracle_folder: OracleFolder, make_onnx: MakeOnnx) -> None:
    """Every matrix but the routers' in blocks of 8 bits, activations too: what is left is rounding."""
    path = make_onnx(oracle_folder(name), "int8-blocks", dialect=dialect, block_size=16)
    divergence = Divergence()
    divergence.add(
        models.golden_logits(name),
        OnnxRuntime(path, "none", threads=1).window(models.tokens()),
        models.tokens(),
    )
    summary = divergence.summary()
    print(name, dialect, summary["kl_mean"])
    assert summary["kl_mean"] <= MOST_BLOCK_KL


def _agree(what: str, name: str, logits: NDArray[np.float32]) -> None:
    golden = models.golden_logits(name)
    difference = np.abs(logits - golden).max() / (golden.max() - golden.min())
    print(f"{what}, {name}: {difference:.1e}")
    assert difference <= MOST_DIFFERENCE
