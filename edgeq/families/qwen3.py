"""Qwen3: norms of queries and keys, head by head, and no biases."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from edgeq.families.decoder import FEED_FORWARD, QK_NORM_ATTENTION
from edgeq.families.qwen2 import Qwen2


class Qwen3(Qwen2):
    """The width of a head does not follow from the hidden size."""

    model_types = ("qwen3",)
    architecture = "qwen3"
    biased = frozenset()
    layer: ClassVar[Mapping[str, str]] = {
        "attn_norm": "input_layernorm",
        **QK_NORM_ATTENTION,
        "ffn_norm": "post_attention_layernorm",
        **FEED_FORWARD,
    }
    defaults: ClassVar[Mapping[str, Any]] = {**Qwen2.defaults, "head_dim": 128}
