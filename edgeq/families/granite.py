"""Granite 3: llama's graph with multipliers for embeddings, residuals, attention and logits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from edgeq.families.base import HyperParameters, config_number
from edgeq.families.decoder import Decoder
from edgeq.families.llama import Llama


class Granite(Decoder):
    """The logits are divided by ``logits_scaling``."""

    model_types = ("granite",)
    architecture = "granite"
    interleaved = True
    llama_cpp_scalings = Llama.llama_cpp_scalings

    def from_config(self, config: Mapping[str, Any]) -> HyperParameters:
        return replace(
            super().from_config(config),
            embed_scale=config_number(config, "embedding_multiplier", 1.0),
            residual_scale=config_number(config, "residual_multiplier", 1.0),
            attention_scale=config_number(config, "attention_multiplier", 1.0),
            logit_divisor=config_number(config, "logits_scaling", 1.0),
        )

    def metadata(self, hp: HyperParameters) -> dict[str, Any]:
        return super().metadata(hp) | {"logit_scale": hp.logit_divisor}  # llama.cpp asks for it
