"""SmolLM3: llama's graph, where every fourth layer has no rope."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

from edgeq.errors import InputError
from edgeq.families.base import HyperParameters, MetadataReader, config_count
from edgeq.families.decoder import Decoder

_PERIOD = 4  # llama.cpp's graph has no other


class SmolLM3(Decoder):
    """``no_rope_layers`` says 1 for the layers that do have rope."""

    model_types = ("smollm3",)
    architecture = "smollm3"
    interleaved = True
    defaults: ClassVar[Mapping[str, Any]] = {
        "num_key_value_heads": 4,
        "tie_word_embeddings": True,
        "use_sliding_window": False,
        "max_position_embeddings": 32768,
    }

    def from_config(self, config: Mapping[str, Any]) -> HyperParameters:
        hp = super().from_config(config)
        rotated = config.get("no_rope_layers")
        if rotated is None:
            rotated = _every(hp.n_layers, config_count(config, "no_rope_layer_interval", _PERIOD))
        fits = isinstance(rotated, list | tuple) and len(rotated) == hp.n_layers
        if not fits or any(one not in (0, 1) for one in rotated):
            raise InputError(f"config.json: no_rope_layers must be {hp.n_layers} times 0 or 1")
        return replace(hp, rotated=tuple(map(bool, rotated)))

    def from_metadata(self, reader: MetadataReader) -> HyperParameters:
        hp = super().from_metadata(reader)
        return replace(hp, rotated=_every(hp.n_layers, _PERIOD))

    def metadata(self, hp: HyperParameters) -> dict[str, Any]:
        if hp.rotated != _every(hp.n_layers, _PERIOD):
            raise InputError(
                f"config.json: no_rope_layers: llama.cpp's smollm3 graph leaves every {_PERIOD}th layer without rope"
            )
        return super().metadata(hp)

    def _local_layers(self, config: Mapping[str, Any], n_layers: int) -> list[bool]:
        raise InputError("config.json: use_sliding_window needs layer_types")


def _every(n_layers: int, period: int) -> tuple[bool, ...]:
    return tuple((i + 1) % period != 0 for i in range(n_layers))
