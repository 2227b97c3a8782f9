"""What a model family is: names, hyper-parameters and a forward pass, written once and read three ways."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from edgeq.errors import InputError
from edgeq.families.ops import Ops, V
from edgeq.families.rope import Rope, is_positive


@dataclass(frozen=True)
class HyperParameters:
    """The numbers that fix a model's shapes and arithmetic, whatever file they came from."""

    n_layers: int
    context: int
    hidden: int
    ffn: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    vocab: int
    norm_eps: float
    rope: Rope | None = None
    tied: bool = False
    n_token_types: int = 0
    pooling: Literal["none", "mean", "cls"] = "none"
    activation: str = ""


@dataclass(frozen=True)
class TensorSpec:
    """One tensor of a model: its GGUF name, its Hugging Face name, and its shape (NumPy order)."""

    name: str
    source: str
    shape: tuple[int, ...]
    optional: bool = False
    rope_heads: int = 0  # GGUF holds these rows interleaved per head, for ggml's "norm" rope


class Family(ABC):
    """A model family. A subclass registers itself under its ``model_types`` when its module is imported."""

    model_types: ClassVar[tuple[str, ...]]  # config.json's model_type
    architecture: ClassVar[str]  # GGUF's general.architecture
    kind: ClassVar[Literal["decoder", "encoder"]]
    source_prefixes: ClassVar[tuple[str, ...]]  # what may stand before a Hugging Face tensor name

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        instance = cls()
        for model_type in cls.model_types:
            BY_MODEL_TYPE[model_type] = instance
        BY_ARCHITECTURE[cls.architecture] = instance

    @abstractmethod
    def from_config(self, config: Mapping[str, Any]) -> HyperParameters:
        """Hyper-parameters from a config.json; raises InputError naming the field that is wrong."""

    @abstractmethod
    def from_metadata(self, reader: MetadataReader) -> HyperParameters:
        """Hyper-parameters from GGUF metadata; raises InputError naming the key that is wrong."""

    @abstractmethod
    def metadata(self, hp: HyperParameters) -> dict[str, Any]:
        """GGUF metadata of the architecture, as llama.cpp reads it; keys without the architecture's prefix."""

    @abstractmethod
    def tensors(self, hp: HyperParameters) -> Iterator[TensorSpec]:
        """Every tensor of the model, in file order."""

    @abstractmethod
    def forward(self, ops: Ops[V], hp: HyperParameters) -> V:
        """The forward pass: the logits of a decoder ``[T, vocab]``, the last hidden state of an encoder ``[T, C]``."""


BY_MODEL_TYPE: dict[str, Family] = {}
BY_ARCHITECTURE: dict[str, Family] = {}


@dataclass(frozen=True)
class MetadataReader:
    """Typed look-ups in one architecture's GGUF metadata, plus the tensor shapes of the same file."""

    architecture: str
    metadata: Mapping[str, Any]
    shapes: Mapping[str, tuple[int, ...]]
    vectors: Mapping[str, tuple[float, ...]] = field(default_factory=dict)  # small float32 tensors, by name

    def number(self, key: str, default: float | None = None) -> float:
        """The positive number under ``{architecture}.{key}``; raises InputError."""
        value = self.metadata.get(f"{self.architecture}.{key}", default)
        if not is_positive(value):
            raise InputError(
                f"GGUF metadata {self.architecture}.{key}: must be a positive number, not {value!r}"
            )
        return value

    def count(self, key: str, default: int | None = None) -> int:
        """The positive integer under ``{architecture}.{key}``; raises InputError."""
        value = self.number(key, default)
        if not isinstance(value, int):
            raise InputError(f"GGUF metadata {self.architecture}.{key}: must be an integer, not {value!r}")
        return value

    def rows(self, tensor: str) -> int:
        """The number of rows of a tensor; raises InputError when the file lacks it."""
        if tensor not in self.shapes:
            raise InputError(f"GGUF tensor {tensor} is missing")
        return self.shapes[tensor][0]


def config_count(config: Mapping[str, Any], key: str, default: int | None = None) -> int:
    """A positive integer of a config.json; raises InputError."""
    value = config.get(key)
    if value is None:
        value = default
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value < 2**31:
        raise InputError(f"config.json: {key} must be a positive integer, not {value!r}")
    return value


def config_number(config: Mapping[str, Any], key: str, default: float | None = None) -> float:
    """A positive number of a config.json; raises InputError."""
    value = config.get(key, default)
    if not is_positive(value):
        raise InputError(f"config.json: {key} must be a positive number, not {value!r}")
    return float(value)


def head_count(config: Mapping[str, Any], hidden: int) -> tuple[int, int]:
    """(query heads, values per head); raises InputError when the width does not divide."""
    n_heads = config_count(config, "num_attention_heads")
    if config.get("head_dim") is None and hidden % n_heads:
        raise InputError(
            f"config.json: hidden_size {hidden} is not a multiple of num_attention_heads {n_heads}"
        )
    return n_heads, config_count(config, "head_dim", hidden // n_heads)
