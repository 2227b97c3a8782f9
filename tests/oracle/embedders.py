"""Tiny sentence-transformers directories: a transformer of ``models`` or ``encoders``, and the modules after it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

from oracle import encoders, models
from safetensors.numpy import save_file

_TYPE = "sentence_transformers.models."


class Embedder(NamedTuple):
    """``config``'s transformer, a pooling, dense layers ``(out, bias, activation)``, and whether it normalises."""

    config: dict[str, Any]
    pooling: str
    dense: tuple[tuple[int, bool, str], ...] = ()
    normalised: bool = True


_TANH, _IDENTITY = "torch.nn.modules.activation.Tanh", "torch.nn.modules.linear.Identity"
MODELS: dict[str, Embedder] = {
    "qwen3-embedder": Embedder(models.MODELS["qwen3"], "lasttoken"),
    "mistral-embedder": Embedder(models.MODELS["mistral"], "mean_tokens", ((96, False, _IDENTITY),), False),
    "gemma3-embedder": Embedder(
        models.MODELS["gemma3"] | {"rope_scaling": None, "use_bidirectional_attention": True},
        "mean_tokens",
        ((96, False, _IDENTITY), (64, False, _IDENTITY)),
    ),
    "bert-embedder": Embedder(
        encoders.MODELS["bert"], "mean_tokens", ((48, True, _TANH), (32, True, _IDENTITY))
    ),
}


def texts(name: str) -> list[list[int]]:
    """What there are golden vectors of."""
    whole = [token or 1 for token in models.tokens()]  # 0 is padding
    return [whole, whole[:60], whole[60:67]]


def write_checkpoint(folder: Path, name: str, shapes: dict[str, list[int]]) -> None:
    """The directory, without a tokenizer."""
    model = MODELS[name]
    models.write_checkpoint(folder, name, shapes, model.config)
    kinds = ["Pooling", *("Dense" for _ in model.dense), *(["Normalize"] if model.normalised else [])]
    paths = ["", *(f"{i}_{kind}" for i, kind in enumerate(kinds, start=1))]
    listed = [
        {"idx": i, "name": str(i), "path": path, "type": _TYPE + kind}
        for i, (path, kind) in enumerate(zip(paths, ["Transformer", *kinds], strict=True))
    ]
    (folder / "modules.json").write_text(json.dumps(listed))
    width = model.config["hidden_size"]
    pooling = {"word_embedding_dimension": width, f"pooling_mode_{model.pooling}": True}
    _write_module(folder / paths[1], pooling)
    for path, (out, bias, activation) in zip(paths[2:], model.dense, strict=False):
        config = {"in_features": width, "out_features": out, "bias": bias, "activation_function": activation}
        _write_module(folder / path, config)
        shape = {"linear.weight": (out, width)} | ({"linear.bias": (out,)} if bias else {})
        tensors = {key: models.values(name, f"{path}/{key}", dims) for key, dims in shape.items()}
        save_file(tensors, folder / path / "model.safetensors", {"format": "pt"})
        width = out


def _write_module(folder: Path, config: dict[str, Any]) -> None:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
