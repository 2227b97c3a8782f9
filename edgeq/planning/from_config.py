"""A model of which only the config.json is known."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any

from edgeq import families
from edgeq.errors import FormatError, InputError
from edgeq.families import Family, HyperParameters
from edgeq.formats.gguf.mixes import ModelShape
from edgeq.formats.gguf.types import DEFAULT_ALIGNMENT, TENSOR_TYPES_BY_NAME, padded
from edgeq.planning.model import PlannedModel, Shape, cached_layers

_MOST_BYTES = 16 << 20
# Of a vocabulary in GGUF: text and its length, type, and score or merges. Llama 3's takes 54, Llama 2's 23.
_BYTES_PER_TOKEN = 50
_KEYS_BYTES = 4096
# config.json's switch for biases that are optional in a checkpoint, by a part of the tensor's name.
_BIAS_SWITCHES = {"attn_": "attention_bias", "ffn_": "mlp_bias"}


def config_file(path: Path) -> PlannedModel:
    """The model that a config.json describes; raises EdgeqError naming the field that is wrong."""
    config = read_object(path)
    family = families.for_config(config, str(path))
    try:
        hp = family.from_config(config)
    except InputError as error:
        raise InputError(f"{path}: {str(error).removeprefix('config.json: ')}") from None
    tensors = list(_tensors(family, hp, config))
    return planned(path.resolve().parent, family, hp, tensors, exact=False)


def planned(
    folder: Path, family: Family, hp: HyperParameters, tensors: Sequence[tuple[str, Shape]], exact: bool
) -> PlannedModel:
    """A model of a family, before it is a file."""
    return PlannedModel(
        name=folder.name or "model",
        kind=family.kind,
        shape=ModelShape(family.architecture, hp.n_layers, hp.n_heads, hp.n_kv_heads, hp.n_experts),
        tensors=tensors,
        context=hp.context,
        hidden=hp.hidden,
        vocab=hp.vocab,
        head_values=hp.n_heads * hp.head_dim,
        cached=cached_layers(hp, getattr(family, "llama_cpp_windows", False))
        if family.kind == "decoder"
        else (),
        gguf_bytes=lambda plans: header_bytes(plans, hp.vocab),
        exact=exact,
        experts_used=hp.n_experts_used,
        folder=folder,
        gguf_keys=lambda: {
            f"{family.architecture}.{key}": value for key, value in family.metadata(hp).items()
        },
    )


def header_bytes(plans: Sequence[tuple[str, str, Shape]], vocab: int) -> int:
    """Bytes of a GGUF file beside its tensors' values: names and shapes exactly, metadata by the vocabulary's size."""
    infos = sum(8 + len(name) + 4 + 8 * len(shape) + 4 + 8 for name, _, shape in plans)
    filling = sum(
        padded(size, DEFAULT_ALIGNMENT) - size
        for size in (tensor_bytes(kind, shape) for _, kind, shape in plans)
    )
    return padded(_KEYS_BYTES + vocab * _BYTES_PER_TOKEN + infos, DEFAULT_ALIGNMENT) + filling


def tensor_bytes(type_name: str, shape: Shape) -> int:
    """Bytes of a tensor in a GGUF file."""
    kind = TENSOR_TYPES_BY_NAME[type_name]
    return prod(shape) // kind.block_values * kind.block_bytes


def _tensors(family: Family, hp: HyperParameters, config: Mapping[str, Any]) -> Iterator[tuple[str, Shape]]:
    """The family's tensors, of optional ones those that the config asks for."""
    for spec in family.tensors(hp):
        switch = next((key for part, key in _BIAS_SWITCHES.items() if part in spec.name), "")
        if not spec.optional or config.get(switch):
            yield spec.name, spec.shape
    if hp.rope is not None:
        for name, values in hp.rope.tensors().items():
            yield name, (len(values),)


def read_object(path: Path) -> dict[str, Any]:
    """The object in a JSON file. (edgeq.source has one too, and imports what takes most of a second.)"""
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise FormatError(path, "is too large")
        value = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise FormatError(path, f"cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:
        raise FormatError(path, f"is not JSON ({error})") from None
    if not isinstance(value, dict):
        raise FormatError(path, "must hold a JSON object")
    return value
