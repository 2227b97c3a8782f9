"""Llama and what shares its graph: Llama 2 and 3, SmolLM2, TinyLlama."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from edgeq.families.decoder import Decoder


class Llama(Decoder):
    """Pre-norm decoder: RMS norm, grouped-query attention with rope, SiLU-gated feed-forward (or experts)."""

    model_types = ("llama",)
    architecture = "llama"
    interleaved = True
    experts: ClassVar[Mapping[str, str]] = {
        "ffn_gate_inp": "block_sparse_moe.gate",
        "ffn_gate_exps": "block_sparse_moe.experts.{}.w1",
        "ffn_up_exps": "block_sparse_moe.experts.{}.w3",
        "ffn_down_exps": "block_sparse_moe.experts.{}.w2",
    }
    llama_cpp_scalings = frozenset({"default", "linear", "llama3", "yarn", "longrope"})
