"""The hyper-parameters of a decoder: how config.json and GGUF metadata spell them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from edgeq.errors import InputError
from edgeq.families.base import (
    Family,
    HyperParameters,
    MetadataReader,
    config_count,
    config_layers,
    config_number,
    head_count,
)
from edgeq.families.ops import Activation, Norm
from edgeq.families.rope import Rope
from edgeq.families.rope_keys import rope_from_config, rope_from_metadata, rope_metadata
from edgeq.families.sentence import pooling_from_metadata, pooling_keys

_ACTIVATIONS: dict[str, Activation] = {
    "silu": "silu",
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
}
# HyperParameters field → GGUF key: written where it is not the default, and read back.
_OPTIONAL_NUMBERS = {
    "embed_scale": "embedding_scale",
    "residual_scale": "residual_scale",
    "attention_scale": "attention.scale",
    "logit_divisor": "logit_scale",
    "attention_cap": "attn_logit_softcapping",
    "logit_cap": "final_logit_softcapping",
}
_OPTIONAL_COUNTS = {
    "n_experts": "expert_count",
    "n_experts_used": "expert_used_count",
    "expert_ffn": "expert_feed_forward_length",
}
_KINDS = ("sliding_attention", "full_attention")
_WINDOW, _PATTERN = "attention.sliding_window", "attention.sliding_window_pattern"


class DecoderKeys(Family):
    """What of a decoder's description concerns its numbers. ``Decoder`` adds tensors and the forward pass."""

    norm: ClassVar[Norm] = "rms"
    activation: ClassVar[Activation] = "silu"
    activation_key: ClassVar[str] = "hidden_act"
    positions: ClassVar[Literal["rope", "table"]] = "rope"
    defaults: ClassVar[Mapping[str, Any]] = {}  # what transformers takes where config.json is silent
    experts: ClassVar[Mapping[str, str]] = {}  # parts of a layer with experts, instead of the feed-forward
    window_period: ClassVar[int] = 0  # every period-th layer sees all; 0: every layer has the window

    # What llama.cpp's graph of the architecture has.
    llama_cpp_windows: ClassVar[bool] = False
    llama_cpp_partial_rope: ClassVar[bool] = False
    llama_cpp_scalings: ClassVar[frozenset[str]] = frozenset({"default", "linear", "yarn"})

    def from_config(self, config: Mapping[str, Any]) -> HyperParameters:
        config = {**self.defaults, **config}
        hidden = config_count(config, "hidden_size")
        n_heads, head_dim = head_count(config, hidden)
        n_kv_heads = config_count(config, "num_key_value_heads", n_heads)
        if n_heads % n_kv_heads:
            raise InputError(
                f"config.json: num_attention_heads {n_heads} is not a multiple of num_key_value_heads {n_kv_heads}"
            )
        self._check_activation(config)
        n_layers = config_layers(config)
        return HyperParameters(
            n_layers=n_layers,
            context=config_count(config, "max_position_embeddings", 2048),
            hidden=hidden,
            ffn=config_count(config, "intermediate_size"),
            n_heads=n_heads,
            n_kv_heads=n_kv_heads,
            head_dim=head_dim,
            vocab=config_count(config, "vocab_size"),
            norm_eps=config_number(config, "rms_norm_eps", 1e-6),
            rope=self._rope(config, head_dim),
            tied=bool(config.get("tie_word_embeddings", False)),
            windows=self._windows(config, n_layers),
        )

    def _check_activation(self, config: Mapping[str, Any]) -> None:
        """Raises InputError for another activation than the family's."""
        name = config.get(self.activation_key) or self.activation
        if not isinstance(name, str) or _ACTIVATIONS.get(name, name) != self.activation:
            raise InputError(
                f"config.json: {self.activation_key} {name!r} is not {self.activation}, as this family has it"
            )

    def _rope(self, config: Mapping[str, Any], head_dim: int) -> Rope | None:
        return rope_from_config(config, head_dim)

    def _windows(self, config: Mapping[str, Any], n_layers: int) -> tuple[int, ...]:
        """The window of each layer from ``sliding_window`` and ``layer_types``; () where no layer has one."""
        if config.get("sliding_window") is None or config.get("use_sliding_window") is False:
            return ()
        window = config_count(config, "sliding_window")
        local = local_layers(config, n_layers)
        return windows_of(self._local_layers(config, n_layers) if local is None else local, window)

    def _local_layers(self, config: Mapping[str, Any], n_layers: int) -> list[bool]:
        """Which layers have the window where config.json has no ``layer_types``."""
        return periodic(n_layers, self.window_period)

    def from_metadata(self, reader: MetadataReader) -> HyperParameters:
        hidden, n_heads = reader.count("embedding_length"), reader.count("attention.head_count")
        n_layers = reader.layers()
        head_dim = reader.count("attention.key_length", hidden // n_heads)
        n_kv_heads = reader.count("attention.head_count_kv", n_heads)
        if n_heads % n_kv_heads:
            raise InputError(
                f"GGUF metadata {reader.architecture}.attention.head_count: {n_heads} is not a multiple "
                f"of {n_kv_heads}"
            )
        optional: dict[str, Any] = {
            field: reader.number(key)
            for field, key in _OPTIONAL_NUMBERS.items()
            if reader.metadata.get(f"{reader.architecture}.{key}")
        }
        optional |= {
            field: reader.count(key)
            for field, key in _OPTIONAL_COUNTS.items()
            if reader.metadata.get(f"{reader.architecture}.{key}")
        }
        ffn = reader.count("feed_forward_length")
        if optional.get("n_experts"):
            if not self.experts:
                raise InputError(
                    f"GGUF metadata {reader.architecture}.expert_count: this family has no experts"
                )
            optional.setdefault("expert_ffn", ffn)
            if not 0 < optional.get("n_experts_used", 0) <= optional["n_experts"]:
                raise InputError(
                    f"GGUF metadata {reader.architecture}.expert_used_count: must be 1 to {optional['n_experts']}"
                )
        return HyperParameters(
            n_layers=n_layers,
            context=reader.count("context_length"),
            hidden=hidden,
            ffn=ffn,
            n_heads=n_heads,
            n_kv_heads=n_kv_heads,
            head_dim=head_dim,
            vocab=reader.rows("token_embd.weight"),
            norm_eps=reader.number(self._eps_key()),
            rope=self._rope_from_metadata(reader, head_dim),
            tied="output.weight" not in reader.shapes,
            windows=self._windows_from_metadata(reader, n_layers),
            pooling=pooling_from_metadata(reader),
            **optional,
        )

    def _rope_from_metadata(self, reader: MetadataReader, head_dim: int) -> Rope | None:
        if self.positions == "table":
            return None
        rope = rope_from_metadata(reader, head_dim)
        if rope.dim != head_dim and not self.llama_cpp_partial_rope:
            raise InputError(
                f"GGUF metadata {reader.architecture}.rope.dimension_count: {rope.dim} is not the width "
                f"of a head, {head_dim}"
            )
        return rope

    def _eps_key(self) -> str:
        return "attention.layer_norm_rms_epsilon" if self.norm == "rms" else "attention.layer_norm_epsilon"

    def _windows_from_metadata(self, reader: MetadataReader, n_layers: int) -> tuple[int, ...]:
        prefix = reader.architecture
        if not reader.metadata.get(f"{prefix}.{_WINDOW}"):
            return ()
        pattern = reader.metadata.get(f"{prefix}.{_PATTERN}", self.window_period)
        if isinstance(pattern, list) and len(pattern) == n_layers:
            local = [bool(one) for one in pattern]
        elif isinstance(pattern, int) and pattern >= 0:
            local = periodic(n_layers, pattern)
        else:
            raise InputError(f"GGUF metadata {prefix}.{_PATTERN}: must say it for each of {n_layers} layers")
        return windows_of(local, reader.count(_WINDOW))

    def metadata(self, hp: HyperParameters) -> dict[str, Any]:
        if hp.rope is not None and hp.rope.scaling not in self.llama_cpp_scalings:
            raise InputError(
                f"config.json: rope_scaling {hp.rope.scaling} is not in llama.cpp's {self.architecture} graph"
            )
        if hp.rope is not None and hp.rope.dim != hp.head_dim and not self.llama_cpp_partial_rope:
            raise InputError(
                f"config.json: partial_rotary_factor is not in llama.cpp's {self.architecture} graph"
            )
        keys: dict[str, Any] = {
            "block_count": hp.n_layers,
            "context_length": hp.context,
            "embedding_length": hp.hidden,
            "feed_forward_length": hp.ffn,
            "attention.head_count": hp.n_heads,
            "attention.head_count_kv": hp.n_kv_heads,
            "attention.key_length": hp.head_dim,
            "attention.value_length": hp.head_dim,
            self._eps_key(): hp.norm_eps,
        }
        if hp.rope is not None:
            keys |= rope_metadata(hp.rope)
        keys["vocab_size"] = hp.vocab
        default = HyperParameters(0, 0, 0, 0, 0, 0, 0, 0, 0.0)
        for field, key in (_OPTIONAL_NUMBERS | _OPTIONAL_COUNTS).items():
            if getattr(hp, field) != getattr(default, field):
                keys[key] = getattr(hp, field)
        return keys | self._window_keys(hp) | self._pooling_keys(hp)

    def _pooling_keys(self, hp: HyperParameters) -> dict[str, Any]:
        self.check_dense(hp)
        return pooling_keys(hp) if hp.pooling != "none" else {}

    def _window_keys(self, hp: HyperParameters) -> dict[str, Any]:
        if not hp.windows:
            return {}
        local = [window > 0 for window in hp.windows]
        keys: dict[str, Any] = {_WINDOW: max(hp.windows)}
        if local != periodic(hp.n_layers, self.window_period):
            keys[_PATTERN] = local
        return keys

    def gguf_notes(self, hp: HyperParameters) -> list[str]:
        if not hp.windows or self.llama_cpp_windows:
            return []
        return [
            f"llama.cpp's {self.architecture} graph has no sliding window: texts longer than "
            f"{max(hp.windows)} tokens answer differently there"
        ]


def local_layers(config: Mapping[str, Any], n_layers: int) -> list[bool] | None:
    """Which layers have the window by ``layer_types``, None where config.json has none; raises InputError."""
    kinds = config.get("layer_types")
    if kinds is None:
        return None
    if not isinstance(kinds, list) or len(kinds) != n_layers or any(kind not in _KINDS for kind in kinds):
        raise InputError(f"config.json: layer_types must be {n_layers} times {' or '.join(_KINDS)}")
    return [kind == _KINDS[0] for kind in kinds]


def windows_of(local: list[bool], window: int) -> tuple[int, ...]:
    """That window for the layers that have one; () where none has."""
    return tuple(window if one else 0 for one in local) if any(local) else ()


def periodic(n_layers: int, period: int) -> list[bool]:
    """Which layers have the window where every ``period``-th sees all (upstream: llama_hparams::set_swa_pattern)."""
    return [period == 0 or i % period < period - 1 for i in range(n_layers)]
