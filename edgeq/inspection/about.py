"""What a GGUF file says that it is, and the architectures whose needs are known here."""

from __future__ import annotations

import re

from edgeq.formats.gguf.reader import GGUFFile

ARCHITECTURE, TYPE = "general.architecture", "general.type"
BLOCK = re.compile(r"blk\.(\d+)\.")
CONVERT = "convert the model again"

# Architectures → the epsilon that `load_arch_hparams` wants (each file in src/models of llama.cpp 0c1e57098).
_RMS, _LAYER = "attention.layer_norm_rms_epsilon", "attention.layer_norm_epsilon"
_RMS_FAMILIES = (
    "llama", "qwen2", "qwen2moe", "qwen3", "qwen3moe", "gemma", "gemma2", "gemma3", "gemma-embedding", "phi3",
    "smollm3", "olmo2", "granite",
)  # fmt: skip
_LAYER_FAMILIES = ("bert", "nomic-bert", "modern-bert", "gpt2", "phi2", "falcon", "stablelm", "starcoder2")
EPSILON_KEYS = {**dict.fromkeys(_RMS_FAMILIES, _RMS), **dict.fromkeys(_LAYER_FAMILIES, _LAYER)}


def is_model(file: GGUFFile) -> bool:
    """False for what says to be something else: an adapter, an importance matrix, a vision projector."""
    return file.metadata.get(TYPE, "model") == "model"
