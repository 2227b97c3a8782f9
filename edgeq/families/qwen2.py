"""Qwen2 and Qwen2.5: llama's graph with biases on queries, keys and values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from edgeq.families.base import config_count
from edgeq.families.decoder import Decoder


class Qwen2(Decoder):
    """Windows, where they are switched on, are in the layers from ``max_window_layers`` on."""

    model_types = ("qwen2",)
    architecture = "qwen2"
    biased = frozenset({"attn_q", "attn_k", "attn_v"})
    defaults: ClassVar[Mapping[str, Any]] = {
        "use_sliding_window": False,
        "sliding_window": 4096,
        "max_position_embeddings": 32768,
    }

    def _local_layers(self, config: Mapping[str, Any], n_layers: int) -> list[bool]:
        first = config.get("max_window_layers")
        first = 0 if first == 0 else config_count(config, "max_window_layers", 28)
        return [i >= first for i in range(n_layers)]
