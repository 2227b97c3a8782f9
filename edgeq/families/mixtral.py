"""Mixtral: mistral with experts, in GGUF llama with experts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

from edgeq.families.base import HyperParameters, config_experts
from edgeq.families.llama import Llama


class Mixtral(Llama):
    """``num_experts_per_tok`` of ``num_local_experts`` read a token."""

    model_types = ("mixtral",)
    defaults: ClassVar[Mapping[str, Any]] = {"rms_norm_eps": 1e-5}

    def from_config(self, config: Mapping[str, Any]) -> HyperParameters:
        hp = super().from_config(config)
        n_experts, used = config_experts(config, ("num_local_experts", 8), ("num_experts_per_tok", 2))
        return replace(hp, n_experts=n_experts, n_experts_used=used, expert_ffn=hp.ffn)
