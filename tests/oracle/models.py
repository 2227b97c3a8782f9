"""Tiny models of every decoder family: configs as the hub has them, and weights that follow from their names.

Shared by ``make.py``, which runs them in transformers and stores golden logits, and by the tests, which need no
PyTorch: the names and shapes of the tensors are stored beside the logits.
"""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

ASSETS = Path(__file__).parents[1] / "assets/oracle"
TOKENS, VOCAB = 128, 320

_COMMON: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "vocab_size": VOCAB,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "hidden_act": "silu",
    "bos_token_id": 0,
    "eos_token_id": 0,
    "pad_token_id": 0,
}
_LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}

_GEMMA = _COMMON | {
    "head_dim": 32,
    "query_pre_attn_scalar": 32,
    "sliding_window": 40,
    "hidden_activation": "gelu_pytorch_tanh",
    "tie_word_embeddings": True,
}

# By name: the family's model_type, or that and a variant. What is shorter than the 128 tokens matters in them.
MODELS: dict[str, dict[str, Any]] = {
    "llama": _COMMON
    | {
        "model_type": "llama",
        "rope_scaling": _LLAMA3,
        "attention_bias": True,
        "mlp_bias": True,
        "head_dim": 32,
        "tie_word_embeddings": False,
    },
    "mistral": _COMMON | {"model_type": "mistral", "sliding_window": 40, "tie_word_embeddings": False},
    "qwen2": _COMMON
    | {
        "model_type": "qwen2",
        "rope_scaling": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64},
        "tie_word_embeddings": True,
    },
    "qwen2-window": _COMMON
    | {
        "model_type": "qwen2",
        "use_sliding_window": True,
        "sliding_window": 50,
        "max_window_layers": 1,
        "tie_word_embeddings": False,
    },
    "qwen3": _COMMON | {"model_type": "qwen3", "head_dim": 32, "tie_word_embeddings": False},
    "olmo2": _COMMON | {"model_type": "olmo2", "tie_word_embeddings": False},
    "granite": _COMMON
    | {
        "model_type": "granite",
        "embedding_multiplier": 6.0,
        "residual_multiplier": 0.7,
        "attention_multiplier": 0.1,
        "logits_scaling": 0.5,
        "tie_word_embeddings": False,
    },
    "smollm3": _COMMON
    | {
        "model_type": "smollm3",
        "num_hidden_layers": 4,
        "no_rope_layers": [1, 1, 1, 0],
        "rope_scaling": {"rope_type": "linear", "factor": 2.0},
        "tie_word_embeddings": True,
    },
    "phi3": _COMMON
    | {
        "model_type": "phi3",
        "partial_rotary_factor": 0.5,
        "original_max_position_embeddings": 64,
        "rope_scaling": {
            "type": "longrope",
            "short_factor": [1.0, 1.1, 1.2, 1.3],
            "long_factor": [1.0, 1.5, 3.0, 4.0],
        },
        "sliding_window": 512,
        "tie_word_embeddings": False,
    },
    "gemma2": _GEMMA
    | {
        "model_type": "gemma2",
        "num_hidden_layers": 4,
        "attn_logit_softcapping": 2.0,
        "final_logit_softcapping": 3.0,
    },
    "gemma3": _GEMMA
    | {
        "model_type": "gemma3_text",
        "num_hidden_layers": 7,
        "rope_theta": 1000000.0,
        "rope_local_base_freq": 10000.0,
        "rope_scaling": {"rope_type": "linear", "factor": 8.0},
    },
    "gpt2": {
        "model_type": "gpt2",
        "n_embd": 64,
        "n_head": 4,
        "n_layer": 2,
        "n_positions": 256,
        "n_ctx": 256,
        "vocab_size": VOCAB,
        "activation_function": "gelu_new",
        "bos_token_id": 0,
        "eos_token_id": 0,
    },
    "mixtral": _COMMON
    | {
        "model_type": "mixtral",
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
        "sliding_window": None,
        "tie_word_embeddings": False,
    },
    "qwen3_moe": _COMMON
    | {
        "model_type": "qwen3_moe",
        "head_dim": 32,
        "num_experts": 8,
        "num_experts_per_tok": 3,
        "moe_intermediate_size": 32,
        "norm_topk_prob": True,
        "tie_word_embeddings": False,
    },
}


_SHARP = ("q_proj", "k_proj", "qkv_proj", "c_attn", ".query.", ".key.", "q_lin", "k_lin", "Wqkv")


def seed(model: str, tensor: str) -> int:
    """What a tensor's values are drawn from."""
    return zlib.crc32(f"{model}/{tensor}".encode())


def values(model: str, tensor: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """The values of a tensor, float32, of a size that keeps every part of the model audible."""
    drawn = np.random.default_rng(seed(model, tensor)).standard_normal(shape)
    if len(shape) == 1 and tensor.endswith(".weight"):  # norms; gemma adds the 1 itself
        return (0.2 * drawn + (0 if model.startswith("gemma") else 1)).astype(np.float32)
    if len(shape) == 1:
        return (0.3 * drawn).astype(np.float32)
    # Sharp queries and keys, so that a wrong angle or a wrong head shows in the logits.
    sharp = 1.5 if any(part in tensor for part in _SHARP) else 1.0
    if tensor.endswith(
        ".gate.weight"
    ):  # so that the last expert chosen weighs little: rounding may change it
        sharp = 4.0
    return (sharp * drawn / np.sqrt(shape[-1])).astype(np.float32)


def tokens() -> list[int]:
    """The text: every token may come."""
    return np.random.default_rng(7).integers(0, VOCAB, TOKENS).tolist()  # type: ignore[no-any-return]


def write_checkpoint(
    folder: Path, model: str, shapes: dict[str, list[int]], config: dict[str, Any] | None = None
) -> None:
    """A checkpoint in transformers' layout; ``config`` where it is none of ``MODELS``."""
    (folder / "config.json").write_text(json.dumps(config or MODELS[model]))
    tensors = {name: values(model, name, tuple(shape)) for name, shape in shapes.items()}
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def stored_shapes() -> dict[str, dict[str, list[int]]]:
    """The tensors of every model, as transformers saves them."""
    shapes: dict[str, dict[str, list[int]]] = json.loads((ASSETS / "shapes.json").read_text())
    return shapes


def save_shapes(model: str, shapes: dict[str, list[int]]) -> None:
    """Store a model's tensors, one line per model."""
    all_shapes = stored_shapes() | {model: shapes}
    lines = [f"{json.dumps(name)}: {json.dumps(all_shapes[name])}" for name in sorted(all_shapes)]
    (ASSETS / "shapes.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")


def save_logits(model: str, logits: NDArray[np.float32]) -> None:
    """Store golden logits in 16 bits over their range, which is a hundredth of the bar."""
    low, high = float(logits.min()), float(logits.max())
    steps = np.round((logits.astype(np.float64) - low) / (high - low) * 65535).astype(np.uint16)
    np.savez_compressed(ASSETS / f"{model}.npz", steps=steps, range=np.array([low, high]))


def golden_logits(model: str) -> NDArray[np.float32]:
    """What transformers gives for the model's tokens: logits ``[TOKENS, VOCAB]`` of a decoder, last hidden states of
    an encoder, logits of a classifier."""
    with np.load(ASSETS / f"{model}.npz") as stored:
        low, high = stored["range"]
        return (stored["steps"].astype(np.float64) / 65535 * (high - low) + low).astype(np.float32)
