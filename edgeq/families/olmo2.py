"""OLMo 2: norms after attention and feed-forward, none before; norms over all queries and all keys."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from edgeq.errors import InputError
from edgeq.families.base import HyperParameters
from edgeq.families.decoder import FEED_FORWARD, QK_NORM_ATTENTION, Decoder


class Olmo2(Decoder):
    """What is normed is what is added to the residual stream."""

    model_types = ("olmo2",)
    architecture = "olmo2"
    whole_qk_norm = True
    layer: ClassVar[Mapping[str, str]] = {
        **QK_NORM_ATTENTION,
        "post_attention_norm": "post_attention_layernorm",
        **FEED_FORWARD,
        "post_ffw_norm": "post_feedforward_layernorm",
    }
    defaults: ClassVar[Mapping[str, Any]] = {"rms_norm_eps": 1e-5}

    def metadata(self, hp: HyperParameters) -> dict[str, Any]:
        if hp.tied:
            raise InputError("config.json: tie_word_embeddings true is not in llama.cpp's olmo2 graph")
        return super().metadata(hp)
