"""A whole llama in a few kilobytes of GGUF, with metadata and tensors to change: for tests of what is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from edgeq.formats.blocks import by_name
from edgeq.formats.gguf.types import TENSOR_TYPES_BY_NAME, Typed, ValueType
from edgeq.formats.gguf.writer import GGUFWriter, TensorPlan

WIDTH, FFN, VOCABULARY, BLOCKS = 32, 64, 12, 2
Tensor = tuple[str, np.ndarray]  # the type's name; float32 values, or uint8 blocks as they are to stand there


def metadata() -> dict[str, Any]:
    """What llama.cpp needs of a llama with a SentencePiece vocabulary; float keys as FLOAT32."""
    return {
        "general.architecture": "llama",
        "general.type": "model",
        "general.file_type": 7,
        "general.quantization_version": 2,
        "llama.context_length": 64,
        "llama.embedding_length": WIDTH,
        "llama.block_count": BLOCKS,
        "llama.feed_forward_length": FFN,
        "llama.attention.head_count": 2,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "llama.vocab_size": VOCABULARY,
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": [
            "<unk>",
            "<s>",
            "</s>",
            "<0x0A>",
            *(f"t{i}" for i in range(VOCABULARY - 4)),
        ],
        "tokenizer.ggml.scores": [0.5] * VOCABULARY,
        "tokenizer.ggml.token_type": Typed([2, 3, 3, 6] + [1] * (VOCABULARY - 4), ValueType.INT32),
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
    }


def tensors(seed: int = 0) -> dict[str, Tensor]:
    """Random weights: matrices in Q8_0, norms in F32."""
    random = np.random.default_rng(seed)

    def values(*shape: int) -> np.ndarray:
        return random.standard_normal(shape).astype(np.float32)

    made: dict[str, Tensor] = {"token_embd.weight": ("Q8_0", values(VOCABULARY, WIDTH))}
    for i in range(BLOCKS):
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            made[f"blk.{i}.{name}.weight"] = ("Q8_0", values(WIDTH, WIDTH))
        made[f"blk.{i}.ffn_gate.weight"] = ("Q8_0", values(FFN, WIDTH))
        made[f"blk.{i}.ffn_up.weight"] = ("Q8_0", values(FFN, WIDTH))
        made[f"blk.{i}.ffn_down.weight"] = ("Q8_0", values(WIDTH, FFN))
        for name in ("attn_norm", "ffn_norm"):
            made[f"blk.{i}.{name}.weight"] = ("F32", values(WIDTH))
    return made | {"output_norm.weight": ("F32", values(WIDTH))}


def blocks(type_name: str, values: np.ndarray) -> np.ndarray:
    """The values encoded, uint8 ``[rows, row_bytes]``."""
    return by_name(type_name).encode(values.reshape(-1, values.shape[-1]))


def write(path: Path, pairs: dict[str, Any] | None = None, made: dict[str, Tensor] | None = None) -> Path:
    """Write the model, or what is given instead. uint8 arrays are blocks: ``[rows, row_bytes]``."""
    pairs = metadata() if pairs is None else pairs
    made = tensors() if made is None else made
    plans, chunks = [], []
    for name, (type_name, content) in made.items():
        raw = content.dtype == np.uint8
        chunks.append((name, content if raw else blocks(type_name, content)))
        plans.append(TensorPlan(name, type_name, _shape(type_name, content) if raw else content.shape))
    with GGUFWriter(path, pairs.get("general.architecture", ""), pairs, plans, force=True) as writer:
        for name, chunk in chunks:
            writer.write_rows(name, np.ascontiguousarray(chunk))
    return path


def _shape(type_name: str, content: np.ndarray) -> tuple[int, int]:
    kind = TENSOR_TYPES_BY_NAME[type_name]
    return len(content), content.shape[1] // kind.block_bytes * kind.block_values
