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
from oracle import models, tokenizer

from edgeq.engine import model as engine
from edgeq.evaluation.metrics import Divergence
from edgeq.evaluation.runtimes import OnnxRuntime
from edgeq.families.base import BY_MODEL_TYPE
from edgeq.formats.gguf.reader import GGUFFile
from edgeq.source import SourceModel

MOST_DIFFERENCE = 1e-3  # of the logits' range
LEAST_TOP1_AGREEMENT, MOST_KL = 0.99, 1e-3
# llama.cpp's graphs of these have no sliding window, so they agree for as many tokens as it has.
WINDOW_ONLY_HERE = {"mistral": 40, "qwen2-window": 50}

Folder = Callable[[str], Path]
MakeGGUF = Callable[[Path, str], Path]
MakeOnnx = Callable[..., Path]


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """The checkpoint of a model, written once."""
    made: dict[str, Path] = {}
    shapes = models.stored_shapes()

    def make(name: str) -> Path:
        if name not in made:
            made[name] = tmp_path_factory.mktemp("tiny")  # llama.cpp expects certain tokens of a "phi3"
            models.write_checkpoint(made[name], name, shapes[name])
            tokenizer.write(made[name], models.VOCAB)
        return made[name]

    return make


def test_every_decoder_family_is_here() -> None:
    decoders = {family for family in BY_MODEL_TYPE.values() if family.kind == "decoder"}
    assert {BY_MODEL_TYPE[str(config["model_type"])] for config in models.MODELS.values()} == decoders


@pytest.mark.parametrize("name", models.MODELS)
def test_engine(name: str, folder: Folder) -> None:
    source = SourceModel.open(folder(name))
    assert source.unused == []
    model, tokens = engine.from_source(source), models.tokens()
    _agree("engine", name, model.logits(tokens))
    cache = model.new_cache(len(tokens))
    parts = [tokens[:50], tokens[50:51], tokens[51:]]
    _agree("engine in parts", name, np.concatenate([model.logits(part, cache) for part in parts]))
    streamed = engine.from_source(source, keep=False)
    _agree("engine, streamed", name, streamed.logits(tokens))


@pytest.mark.parametrize("name", models.MODELS)
def test_gguf_in_llama_cpp(name: str, folder: Folder, make_gguf: MakeGGUF) -> None:
    pytest.importorskip("llama_cpp")
    tokens = models.tokens()[: WINDOW_ONLY_HERE.get(name)]
    context = models.MODELS[name].get("max_position_embeddings") or models.MODELS[name]["n_positions"]
    logits, warnings = llama_probe.probe(make_gguf(folder(name), "F16"), context, tokens)
    divergence = Divergence()
    divergence.add(models.golden_logits(name)[: len(tokens)], logits, tokens)
    summary = divergence.summary()
    print(name, {key: round(float(value), 7) for key, value in summary.items()})
    assert warnings == []
    assert summary["top1_agreement"] >= LEAST_TOP1_AGREEMENT
    assert summary["kl_mean"] <= MOST_KL


@pytest.mark.parametrize("name", models.MODELS)
def test_gguf_in_the_engine(name: str, folder: Folder, make_gguf: MakeGGUF) -> None:
    """What the metadata say, and how the tensors lie, read back."""
    with GGUFFile.open(make_gguf(folder(name), "F32")) as file:
        model = engine.from_gguf(file)
        _agree("GGUF", name, model.logits(models.tokens()))


@pytest.mark.parametrize("name", models.MODELS)
def test_onnx(name: str, folder: Folder, make_onnx: MakeOnnx) -> None:
    tokens = models.tokens()
    runtime = OnnxRuntime(make_onnx(folder(name), "float32"), "none", threads=1)
    _agree("ONNX", name, runtime.window(tokens))
    first = runtime.window(tokens[:100])
    steps = [runtime.step(token) for token in tokens[100:]]
    _agree("ONNX in steps", name, np.concatenate([first, steps]))


def _agree(what: str, name: str, logits: NDArray[np.float32]) -> None:
    golden = models.golden_logits(name)
    difference = np.abs(logits - golden).max() / (golden.max() - golden.min())
    print(f"{what}, {name}: {difference:.1e}")
    assert difference <= MOST_DIFFERENCE
