"""Plain twins: slow, in float64, and written apart from edgeq, after the definitions in Hugging Face transformers.

``llama_logits`` and ``bert_hidden`` take a config.json as a dictionary and tensors by their Hugging Face names
without a ``model.`` or ``bert.`` prefix. ``gelu`` is the twin of ``edgeq.kernels_cpu.activations.gelu``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]
Tensors = Mapping[str, Doubles]

_DTYPES = {"F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16}


def load(folder: Path) -> tuple[dict[str, Any], dict[str, Doubles]]:
    """config.json, and every tensor of every .safetensors file in a folder."""
    config = json.loads((folder / "config.json").read_text())
    tensors = {}
    for path in sorted(folder.glob("*.safetensors")):
        data = path.read_bytes()
        start = 8 + int.from_bytes(data[:8], "little")
        for name, info in json.loads(data[8:start]).items():
            if name == "__metadata__" or info["dtype"] not in _DTYPES:
                continue
            begin, end = info["data_offsets"]
            values = np.frombuffer(data[start + begin : start + end], _DTYPES[info["dtype"]])
            short = name.removeprefix("model.").removeprefix("bert.")
            tensors[short] = values.reshape(info["shape"]).astype(np.float64)
    return config, tensors


def llama_logits(config: Mapping[str, Any], tensors: Tensors, tokens: Sequence[int]) -> Doubles:
    """LlamaForCausalLM: logits ``[T, vocab]``."""
    n_heads = config["num_attention_heads"]
    n_kv = config.get("num_key_value_heads") or n_heads
    head_dim = config.get("head_dim") or config["hidden_size"] // n_heads
    eps = config["rms_norm_eps"]
    cos, sin = _rope_tables(config, head_dim, len(tokens))
    x = tensors["embed_tokens.weight"][list(tokens)]
    for i in range(config["num_hidden_layers"]):
        layer = f"layers.{i}."
        h = _rms_norm(x, tensors[layer + "input_layernorm.weight"], eps)
        q = _linear(tensors, layer + "self_attn.q_proj", h).reshape(-1, n_heads, head_dim)
        k = _linear(tensors, layer + "self_attn.k_proj", h).reshape(-1, n_kv, head_dim)
        v = _linear(tensors, layer + "self_attn.v_proj", h).reshape(-1, n_kv, head_dim)
        q, k = (a * cos + _rotate_half(a) * sin for a in (q, k))
        k, v = (np.repeat(a, n_heads // n_kv, axis=1) for a in (k, v))
        mixed = _attention(q, k, v, causal=True).reshape(len(tokens), -1)
        x = x + _linear(tensors, layer + "self_attn.o_proj", mixed)
        h = _rms_norm(x, tensors[layer + "post_attention_layernorm.weight"], eps)
        gate = _linear(tensors, layer + "mlp.gate_proj", h)
        gated = gate / (1 + np.exp(-gate)) * _linear(tensors, layer + "mlp.up_proj", h)
        x = x + _linear(tensors, layer + "mlp.down_proj", gated)
    x = _rms_norm(x, tensors["norm.weight"], eps)
    return x @ tensors["embed_tokens.weight" if config["tie_word_embeddings"] else "lm_head.weight"].T


def bert_hidden(config: Mapping[str, Any], tensors: Tensors, tokens: Sequence[int]) -> Doubles:
    """BertModel: the last hidden state ``[T, C]`` of one sentence without padding."""
    n_heads, eps = config["num_attention_heads"], config["layer_norm_eps"]
    x = tensors["embeddings.word_embeddings.weight"][list(tokens)]
    x = x + tensors["embeddings.position_embeddings.weight"][: len(tokens)]
    x = x + tensors["embeddings.token_type_embeddings.weight"][0]
    x = _layer_norm(tensors, "embeddings.LayerNorm", x, eps)
    for i in range(config["num_hidden_layers"]):
        layer = f"encoder.layer.{i}."
        q, k, v = (
            _linear(tensors, f"{layer}attention.self.{name}", x).reshape(len(tokens), n_heads, -1)
            for name in ("query", "key", "value")
        )
        mixed = _attention(q, k, v, causal=False).reshape(len(tokens), -1)
        x = x + _linear(tensors, layer + "attention.output.dense", mixed)
        x = _layer_norm(tensors, layer + "attention.output.LayerNorm", x, eps)
        h = gelu(_linear(tensors, layer + "intermediate.dense", x))
        x = x + _linear(tensors, layer + "output.dense", h)
        x = _layer_norm(tensors, layer + "output.LayerNorm", x, eps)
    return x


def mean_embedding(hidden: Doubles) -> Doubles:
    """Sentence-transformers' mean pooling and normalisation of one sentence."""
    pooled: Doubles = hidden.mean(axis=0)
    return pooled / math.sqrt(float(pooled @ pooled))


def gelu(x: NDArray[Any]) -> Doubles:
    """x·Φ(x), value by value."""
    return np.array([v * 0.5 * (1 + math.erf(v / math.sqrt(2))) for v in x.ravel().tolist()]).reshape(x.shape)


def _linear(tensors: Tensors, name: str, x: Doubles) -> Doubles:
    return x @ tensors[name + ".weight"].T + tensors.get(name + ".bias", np.float64(0))


def _rms_norm(x: Doubles, weight: Doubles, eps: float) -> Doubles:
    return x * weight / np.sqrt((x * x).mean(axis=-1, keepdims=True) + eps)


def _layer_norm(tensors: Tensors, name: str, x: Doubles, eps: float) -> Doubles:
    centred = x - x.mean(axis=-1, keepdims=True)
    normal = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + eps)
    return normal * tensors[name + ".weight"] + tensors[name + ".bias"]


def _attention(q: Doubles, k: Doubles, v: Doubles, causal: bool) -> Doubles:
    """Head by head and token by token; q, k and v are ``[T, H, D]``."""
    out = np.empty_like(q)
    for head in range(q.shape[1]):
        for i in range(len(q)):
            end = i + 1 if causal else len(q)
            scores = k[:end, head] @ q[i, head] / math.sqrt(q.shape[2])
            weights = np.exp(scores - scores.max())
            out[i, head] = weights / weights.sum() @ v[:end, head]
    return out


def _rotate_half(x: Doubles) -> Doubles:
    half = x.shape[-1] // 2
    return np.concatenate([-x[..., half:], x[..., :half]], axis=-1)


def _rope_tables(config: Mapping[str, Any], dim: int, length: int) -> tuple[Doubles, Doubles]:
    """cos and sin ``[T, 1, dim]``, each frequency twice, as ``_rotate_half`` wants them."""
    frequencies = []
    for i in range(dim // 2):
        frequencies.append(_scaled(config["rope_theta"] ** (-2 * i / dim), config.get("rope_scaling") or {}))
    angles = np.arange(length)[:, None, None] * np.array(frequencies + frequencies)
    return np.cos(angles), np.sin(angles)


def _scaled(frequency: float, scaling: Mapping[str, Any]) -> float:
    """One frequency under ``rope_scaling`` (transformers: _compute_linear_.., _compute_llama3_parameters)."""
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    if kind == "default":
        return frequency
    if kind == "linear":
        return frequency / scaling["factor"]
    assert kind == "llama3", kind
    low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
    original = scaling["original_max_position_embeddings"]
    wavelength = 2 * math.pi / frequency
    if wavelength < original / high:
        return frequency
    if wavelength > original / low:
        return frequency / scaling["factor"]
    smooth = (original / wavelength - low) / (high - low)
    return (1 - smooth) * frequency / scaling["factor"] + smooth * frequency
