"""EmbeddingGemma: Gemma 3 whose tokens see one another in both directions, pooled and put through two dense layers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from edgeq.errors import InputError
from edgeq.families.base import Dense, HyperParameters, MetadataReader
from edgeq.families.gemma3 import Gemma3

_FEATURES = ("dense_2", "dense_3")  # GGUF's names of the layers after the pooling


class GemmaEmbedding(Gemma3):
    """``gemma3_text`` with ``use_bidirectional_attention``: an encoder. A window is half before a token, half after it.

    Upstream: llama.cpp's src/models/gemma-embedding.cpp, ``EmbeddingGemma`` in conversion/gemma.py.
    """

    model_types = ("gemma3_text",)
    architecture = "gemma-embedding"
    kind = "encoder"

    def from_config(self, config: Mapping[str, Any]) -> HyperParameters:
        return super().from_config({**config, "use_bidirectional_attention": False})

    def from_metadata(self, reader: MetadataReader) -> HyperParameters:
        shapes = [reader.shapes[f"{name}.weight"] for name in _FEATURES if f"{name}.weight" in reader.shapes]
        if any(len(shape) != 2 for shape in shapes):
            raise InputError(f"GGUF tensors {' and '.join(_FEATURES)}: must be matrices")
        return replace(super().from_metadata(reader), dense=tuple(Dense(n, m) for m, n in shapes))

    def metadata(self, hp: HyperParameters) -> dict[str, Any]:
        keys: dict[str, Any] = {"attention.causal": False}
        for name, layer in zip(_FEATURES, hp.dense, strict=False):
            keys |= {f"{name}_feat_in": layer.inputs, f"{name}_feat_out": layer.outputs}
        return super().metadata(hp) | keys

    def check_dense(self, hp: HyperParameters) -> None:
        plain = all(layer.activation == "none" and not layer.bias for layer in hp.dense)
        if len(hp.dense) > len(_FEATURES) or not plain or hp.vector_width != hp.hidden:
            raise InputError(
                f"modules.json: llama.cpp's {self.architecture} graph has two Dense after the pooling, without bias or "
                "activation, that end in the model's width; ONNX has these (--to onnx)"
            )
