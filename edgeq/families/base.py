"""What a model family is: names, hyper-parameters and a forward pass, written once and read three ways."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from edgeq.errors import InputError
from edgeq.families.ops import Activation, Ops, Pooling, V
from edgeq.families.rope import Rope, is_positive

HeadKind = Literal["none", "sequence", "tokens"]  # classifies whole sequences, or each token
LabelScores = Literal["softmax", "sigmoid", "none"]
MOST_LAYERS = 4096  # of any model; what lists something for each layer must not be made to fill the memory


@dataclass(frozen=True)
class Dense:
    """A layer that a sentence's vector goes through (upstream: sentence-transformers ``models.Dense``)."""

    inputs: int
    outputs: int
    activation: Literal["none"] | Activation = "none"
    bias: bool = False
    source: str = field(default="", compare=False)  # the checkpoint's folder that has it


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
    local_rope: Rope | None = None  # of the layers with a window
    windows: tuple[
        int, ...
    ] = ()  # of each layer, as ``Ops.attention`` counts it, 0 for all tokens; () is all
    # How a sentence embedding is made of the tokens' vectors; a decoder with a pooling makes such, and no logits.
    pooling: Literal["none"] | Pooling = "none"
    dense: tuple[Dense, ...] = ()  # what stands after the pooling
    normalised: bool = True  # sentence embeddings are brought to unit length
    # What only some encoders have.
    n_token_types: int = 0
    position_offset: int = field(default=0, compare=False)  # rows of the checkpoint's table before the first
    head: HeadKind = "none"
    head_pooling: Pooling = "cls"  # what a head for sequences reads
    labels: tuple[str, ...] = ()  # what a head tells apart
    label_scores: LabelScores = field(default="softmax", compare=False)  # what makes probabilities of logits
    # What only some decoders have.
    rotated: tuple[bool, ...] = ()  # whether each layer has rope; () is all
    embed_scale: float = 1.0
    residual_scale: float = 1.0
    attention_scale: float = 0.0  # 0 is head_dim ** -0.5
    logit_divisor: float = 1.0
    attention_cap: float = 0.0  # scores and logits are bent to stay below these; 0 is none
    logit_cap: float = 0.0
    n_experts: int = 0
    n_experts_used: int = 0
    expert_ffn: int = 0
    normalised_experts: bool = True  # the weights of the experts used add up to 1

    @property
    def vector_width(self) -> int:
        """Values of a sentence embedding."""
        return self.dense[-1].outputs if self.dense else self.hidden

    def rope_of(self, layer: int) -> Rope | None:
        """The rope of a layer, None where it has none."""
        if self.rotated and not self.rotated[layer]:
            return None
        return self.local_rope if self.local_rope is not None and self.window_of(layer) else self.rope

    def window_of(self, layer: int) -> int:
        """How many tokens a layer sees, as ``Ops.attention`` counts them; 0 for all."""
        return self.windows[layer] if self.windows else 0


@dataclass(frozen=True)
class TensorSpec:
    """One tensor of a model: its GGUF name, its Hugging Face name, and its shape (NumPy order)."""

    name: str
    source: str
    shape: tuple[int, ...]
    optional: bool = False
    rope_heads: int = 0  # GGUF holds these rows interleaved per head, for ggml's "norm" rope
    stacked: bool = False  # shape[0] checkpoint tensors, "{}" in ``source`` their number, are stacked
    transposed: bool = False  # the checkpoint holds [columns, rows]
    shift: float = 0.0  # is added to the checkpoint's values
    skipped: int = 0  # rows that the checkpoint has before these
    old_source: str = ""  # what older checkpoints call it

    def sources(self) -> Iterator[str]:
        """The checkpoint tensors that make up this one."""
        if self.stacked:
            yield from (self.source.format(i) for i in range(self.shape[0]))
        else:
            yield self.source

    def stored_shape(self) -> tuple[int, ...]:
        """The shape of each of ``sources()`` in the checkpoint."""
        own = self.shape[1:] if self.stacked else (self.shape[0] + self.skipped, *self.shape[1:])
        return own[::-1] if self.transposed else own


class Family(ABC):
    """A model family. A subclass registers itself under its ``model_types`` when its module is imported."""

    model_types: ClassVar[tuple[str, ...]]  # config.json's model_type
    architecture: ClassVar[str]  # GGUF's general.architecture
    kind: ClassVar[Literal["decoder", "encoder"]]
    source_prefixes: ClassVar[tuple[str, ...]]  # what may stand before a Hugging Face tensor name

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "model_types" not in cls.__dict__:
            return  # a base of families
        instance = cls()
        for model_type in cls.model_types:
            BY_MODEL_TYPE.setdefault(model_type, instance)
        BY_ARCHITECTURE.setdefault(cls.architecture, instance)  # several share one: the first reads its files

    def variant(self, config: Mapping[str, Any]) -> Family:
        """The family that a config.json of this model_type describes, where there are several."""
        return self

    @abstractmethod
    def from_config(self, config: Mapping[str, Any]) -> HyperParameters:
        """Hyper-parameters from a config.json; raises InputError naming the field that is wrong."""

    @abstractmethod
    def from_metadata(self, reader: MetadataReader) -> HyperParameters:
        """Hyper-parameters from GGUF metadata; raises InputError naming the key that is wrong."""

    @abstractmethod
    def metadata(self, hp: HyperParameters) -> dict[str, Any]:
        """GGUF metadata of the architecture, as llama.cpp reads it; keys without the architecture's prefix.

        Raises InputError for what llama.cpp's graph of this architecture cannot do.
        """

    def gguf_notes(self, hp: HyperParameters) -> list[str]:
        """What llama.cpp leaves out when it runs such a model, for the user to know."""
        return []

    @abstractmethod
    def tensors(self, hp: HyperParameters) -> Iterator[TensorSpec]:
        """Every tensor of the model, in file order."""

    def check_dense(self, hp: HyperParameters) -> None:
        """Raise InputError for layers after the pooling that llama.cpp's graph of the architecture has not."""
        if hp.dense:
            raise InputError(
                f"modules.json: {hp.dense[0].source} is a Dense, which llama.cpp's {self.architecture} graph has not; "
                "ONNX has it (--to onnx)"
            )

    def generates(self, hp: HyperParameters) -> bool:
        """Whether the model continues texts; a decoder with a pooling embeds them, as an encoder does."""
        return self.kind == "decoder" and hp.pooling == "none"

    @abstractmethod
    def hidden(self, ops: Ops[V], hp: HyperParameters) -> V:
        """The last hidden state ``[T, C]``, after the last norm."""

    @abstractmethod
    def forward(self, ops: Ops[V], hp: HyperParameters) -> V:
        """The forward pass: the logits of a decoder ``[T, vocab]``, the last hidden state of an encoder ``[T, C]``.

        Where ``hp.head`` says that the encoder classifies, its logits: ``[1, labels]`` of a sequence, ``[T, labels]``
        of tokens.
        """


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

    def layers(self) -> int:
        """The number of layers; raises InputError."""
        n_layers = self.count("block_count")
        if n_layers > MOST_LAYERS:
            raise InputError(f"GGUF metadata {self.architecture}.block_count: {n_layers} is too many")
        return n_layers

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


def config_layers(config: Mapping[str, Any], key: str = "num_hidden_layers") -> int:
    """The number of layers of a config.json; raises InputError."""
    n_layers = config_count(config, key)
    if n_layers > MOST_LAYERS:
        raise InputError(f"config.json: {key} {n_layers} is more than {MOST_LAYERS}")
    return n_layers


def config_experts(
    config: Mapping[str, Any], count: tuple[str, int], used: tuple[str, int]
) -> tuple[int, int]:
    """How many experts there are and how many read a token, by key and default; raises InputError."""
    n_experts, n_used = config_count(config, *count), config_count(config, *used)
    if n_used > n_experts:
        raise InputError(f"config.json: {used[0]} {n_used} is more than {count[0]} {n_experts}")
    return n_experts, n_used


def head_count(config: Mapping[str, Any], hidden: int) -> tuple[int, int]:
    """(query heads, values per head); raises InputError when the width does not divide."""
    n_heads = config_count(config, "num_attention_heads")
    if config.get("head_dim") is None and hidden % n_heads:
        raise InputError(
            f"config.json: hidden_size {hidden} is not a multiple of num_attention_heads {n_heads}"
        )
    return n_heads, config_count(config, "head_dim", hidden // n_heads)
