"""Qwen3 with experts in every layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

from edgeq.errors import InputError
from edgeq.families.base import HyperParameters, config_count, config_experts
from edgeq.families.qwen2 import Qwen2
from edgeq.families.qwen3 import Qwen3


class Qwen3Moe(Qwen3):
    """``num_experts_per_tok`` of ``num_experts`` read a token."""

    model_types = ("qwen3_moe",)
    architecture = "qwen3moe"
    defaults: ClassVar[Mapping[str, Any]] = Qwen2.defaults
    experts: ClassVar[Mapping[str, str]] = {
        "ffn_gate_inp": "mlp.gate",
        "ffn_gate_exps": "mlp.experts.{}.gate_proj",
        "ffn_up_exps": "mlp.experts.{}.up_proj",
        "ffn_down_exps": "mlp.experts.{}.down_proj",
    }

    def from_config(self, config: Mapping[str, Any]) -> HyperParameters:
        if config.get("mlp_only_layers") or config.get("decoder_sparse_step", 1) != 1:
            raise InputError(
                "config.json: mlp_only_layers and decoder_sparse_step: every layer must have experts"
            )
        n_experts, used = config_experts(config, ("num_experts", 128), ("num_experts_per_tok", 8))
        return replace(
            super().from_config(config),
            n_experts=n_experts,
            n_experts_used=used,
            expert_ffn=config_count(config, "moe_intermediate_size", 768),
            normalised_experts=bool(config.get("norm_topk_prob", False)),
        )

    def metadata(self, hp: HyperParameters) -> dict[str, Any]:
        if not hp.normalised_experts:
            raise InputError("config.json: norm_topk_prob false is not in llama.cpp's qwen3moe graph")
        return super().metadata(hp)

    def _local_layers(self, config: Mapping[str, Any], n_layers: int) -> list[bool]:
        return [True] * n_layers
