"""Phi 3, 3.5 and 4: llama's graph with fused projections, part of a head turning, and LongRope."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from edgeq.families.decoder import Decoder


class Phi3(Decoder):
    """One matrix holds queries, keys and values, another the gate and what it gates."""

    model_types = ("phi3",)
    architecture = "phi3"
    layer: ClassVar[Mapping[str, str]] = {
        "attn_norm": "input_layernorm",
        "attn_qkv": "self_attn.qkv_proj",
        "attn_output": "self_attn.o_proj",
        "ffn_norm": "post_attention_layernorm",
        "ffn_up": "mlp.gate_up_proj",
        "ffn_down": "mlp.down_proj",
    }
    defaults: ClassVar[Mapping[str, Any]] = {"rms_norm_eps": 1e-5, "max_position_embeddings": 4096}
    llama_cpp_partial_rope = True
    llama_cpp_scalings = frozenset({"default", "longrope"})

    def _windows(self, config: Mapping[str, Any], n_layers: int) -> tuple[int, ...]:
        """None where it is no shorter than the context: llama.cpp warns of every window."""
        windows = super()._windows(config, n_layers)
        context = config.get("max_position_embeddings")
        return () if isinstance(context, int) and max(windows, default=0) >= context else windows
