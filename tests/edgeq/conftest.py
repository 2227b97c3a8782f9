"""Models of the tests: TinyLM, MiniLM, and small random llamas; files made of them are shared by a whole session."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import heldout
import minilm as minilm_package
import ml_dtypes
import numpy as np
import pytest
from llama_8b import LLAMA_8B
from numpy.typing import NDArray
from oracle import encoder_tokenizers, encoders, models, tokenizer
from safetensors.numpy import save_file

from edgeq import tokenization
from edgeq.calibration.text import Text, read_text
from edgeq.formats.effort import Effort
from edgeq.source import SourceModel

TINYLM = Path(__file__).parents[1] / "assets/tinylm"
_CALIBRATION_SENTENCES = 64
_CALIBRATION_CHARACTERS = 12_000

LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The user's cache stays as it is."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGEQ_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@dataclass(frozen=True)
class Recipe:
    """A random llama: what its config.json says beyond the defaults, and how it is stored."""

    config: dict[str, Any] = field(default_factory=dict)
    dtype: Any = np.float32
    bias: bool = False
    shards: int = 1


# Each has something of its own; together they have every branch of the llama family.
RECIPES = {
    "untied": Recipe({"tie_word_embeddings": False}),
    "no-gqa": Recipe({"num_key_value_heads": 4}, ml_dtypes.bfloat16),
    "wide-heads": Recipe({"head_dim": 32, "num_key_value_heads": 1}, np.float16),
    "bias": Recipe({"attention_bias": True, "mlp_bias": True}, bias=True),
    "llama3-rope": Recipe(
        {"rope_scaling": LLAMA3, "tie_word_embeddings": False}, ml_dtypes.bfloat16, shards=3
    ),
    "linear-rope": Recipe({"rope_scaling": {"type": "linear", "factor": 4.0}}, shards=2),
}


def write_llama(folder: Path, recipe: Recipe, seed: int) -> None:
    """A checkpoint of random weights with TinyLM's tokenizer, in transformers' layout."""
    config = {
        "model_type": "llama",
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "max_position_embeddings": 512,
        "vocab_size": 4096,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "hidden_act": "silu",
        "tie_word_embeddings": True,
        "bos_token_id": 0,
        "eos_token_id": 0,
    } | recipe.config
    (folder / "config.json").write_text(json.dumps(config))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(TINYLM / name, folder / name)
    random = np.random.default_rng(seed)
    tensors = {
        name: _random(random, name, shape).astype(recipe.dtype)
        for name, shape in _shapes(config, recipe.bias).items()
    }
    names, per_shard = list(tensors), -(-len(tensors) // recipe.shards)
    if recipe.shards == 1:
        save_file(tensors, folder / "model.safetensors")
        return
    weight_map = {}
    for shard in range(recipe.shards):
        file = f"model-{shard + 1:05}-of-{recipe.shards:05}.safetensors"
        own = names[shard * per_shard : (shard + 1) * per_shard]
        save_file({name: tensors[name] for name in own}, folder / file)
        weight_map |= dict.fromkeys(own, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


def _shapes(config: dict[str, Any], bias: bool) -> dict[str, tuple[int, ...]]:
    hidden, ffn = config["hidden_size"], config["intermediate_size"]
    q, kv = (config[key] * config["head_dim"] for key in ("num_attention_heads", "num_key_value_heads"))
    linears = {"self_attn.q_proj": (q, hidden), "self_attn.k_proj": (kv, hidden)}
    linears |= {"self_attn.v_proj": (kv, hidden), "self_attn.o_proj": (hidden, q)}
    linears |= {"mlp.gate_proj": (ffn, hidden), "mlp.up_proj": (ffn, hidden), "mlp.down_proj": (hidden, ffn)}
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (config["vocab_size"], hidden)}
    for i in range(config["num_hidden_layers"]):
        layer = f"model.layers.{i}."
        for name, shape in linears.items():
            shapes[f"{layer}{name}.weight"] = shape
            if bias:
                shapes[f"{layer}{name}.bias"] = shape[:1]
        shapes[layer + "input_layernorm.weight"] = (hidden,)
        shapes[layer + "post_attention_layernorm.weight"] = (hidden,)
    shapes["model.norm.weight"] = (hidden,)
    if not config["tie_word_embeddings"]:
        shapes["lm_head.weight"] = (config["vocab_size"], hidden)
    return shapes


def _random(random: np.random.Generator, name: str, shape: tuple[int, ...]) -> NDArray[np.float64]:
    values = random.standard_normal(shape)
    if "norm" in name:
        return 1 + 0.2 * values
    if name.endswith(".bias"):
        return 0.3 * values
    # Sharp queries and keys, so that a wrong angle or a wrong head shows in the logits.
    return values * (2.0 if "q_proj" in name or "k_proj" in name else 1.0) / np.sqrt(shape[-1])


@pytest.fixture
def llama(tmp_path: Path) -> Path:
    """A model of eight billion parameters, by its config.json alone."""
    path = tmp_path / "config.json"
    path.write_text(json.dumps(LLAMA_8B))
    return path


@pytest.fixture(scope="session")
def tinylm() -> Path:
    return TINYLM


@pytest.fixture(scope="session")
def minilm() -> Path:
    return minilm_package.folder()


@pytest.fixture(scope="session")
def random_llama(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The directory of a recipe's model, written once."""
    made: dict[str, Path] = {}

    def folder(name: str) -> Path:
        if name not in made:
            made[name] = tmp_path_factory.mktemp(name)
            write_llama(made[name], RECIPES[name], seed=len(name))
        return made[name]

    return folder


@pytest.fixture(scope="session", params=["tinylm", *RECIPES])
def decoder_folder(request: pytest.FixtureRequest, random_llama: Callable[[str], Path]) -> Path:
    """TinyLM, then every random llama."""
    return TINYLM if request.param == "tinylm" else random_llama(request.param)


@pytest.fixture(scope="session")
def code_tokens() -> list[int]:
    """Held-out code in TinyLM's tokens (the random llamas have the same tokenizer)."""
    return tokenization.from_directory(TINYLM).encode(heldout.code()).ids


@pytest.fixture(scope="session")
def code_text() -> Text:
    """Held-out code to calibrate on: its end, where ``code_tokens`` is used from its beginning."""
    return Text("held-out code", heldout.code()[-_CALIBRATION_CHARACTERS:])


@pytest.fixture(scope="session")
def sentence_text() -> Text:
    """Sentences to calibrate on."""
    return Text("docstrings", "\n".join(heldout.sentences().calibration[:_CALIBRATION_SENTENCES]))


@pytest.fixture(scope="session")
def oracle_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The checkpoint of one of ``oracle.models``, written once."""
    made: dict[str, Path] = {}
    shapes = models.stored_shapes()

    def make(name: str) -> Path:
        if name not in made:
            made[name] = tmp_path_factory.mktemp("tiny")  # llama.cpp expects certain tokens of a "phi3"
            models.write_checkpoint(made[name], name, shapes[name])
            tokenizer.write(made[name], models.VOCAB)
        return made[name]

    return make


@pytest.fixture(scope="session")
def encoder_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The checkpoint of one of ``oracle.encoders``, written once."""
    made: dict[str, Path] = {}
    shapes = models.stored_shapes()

    def make(name: str) -> Path:
        if name not in made:
            made[name] = tmp_path_factory.mktemp("tiny")
            config = encoders.MODELS[name]
            models.write_checkpoint(made[name], name, shapes[name], config)
            encoder_tokenizers.write(made[name], config["model_type"], models.VOCAB)
        return made[name]

    return make


MakeOnnx = Callable[..., Path]


@pytest.fixture(scope="session")
def make_onnx(tmp_path_factory: pytest.TempPathFactory) -> MakeOnnx:
    """(folder, quant, text=None, percentile=None, full_range=False) → the graph's path, made once."""
    from edgeq.convert import onnx_file
    from edgeq.convert.onnx_quants import QuantOptions

    made: dict[Any, Path] = {}

    def make(folder: Path, quant: str, text: Text | None = None, **options: Any) -> Path:
        key = (folder, quant, text.name if text else "", tuple(sorted(options.items())))
        if key not in made:
            out = tmp_path_factory.mktemp(quant)
            chosen = QuantOptions(text or read_text(None), out, **options)
            onnx_file.write(SourceModel.open(folder), quant, out / "model.onnx", chosen)
            made[key] = out / "model.onnx"
        return made[key]

    return make


class MakeGGUF(Protocol):
    def __call__(self, folder: Path, quant: str, effort: Effort = Effort.ggml) -> Path: ...


@pytest.fixture(scope="session")
def make_gguf(tmp_path_factory: pytest.TempPathFactory) -> MakeGGUF:
    """(folder, quant) → the file's path, made once; with llama.cpp's bytes where nothing else is said."""
    from edgeq.convert import gguf_file
    from edgeq.convert.checkpoint_rows import CheckpointRows

    made: dict[tuple[Path, str, Effort], Path] = {}

    def make(folder: Path, quant: str, effort: Effort = Effort.ggml) -> Path:
        key = folder, quant, effort
        if key not in made:
            rows = CheckpointRows(SourceModel.open(folder))
            path = tmp_path_factory.mktemp(quant) / f"model-{quant}.gguf"
            gguf_file.write(rows, gguf_file.plan(rows, quant), path, gguf_file.WriteOptions(effort=effort))
            made[key] = path
        return made[key]

    return make
