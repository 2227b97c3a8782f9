"""The hyper-parameters of an encoder: how config.json and GGUF metadata spell them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from edgeq.errors import InputError
from edgeq.families.base import (
    Family,
    HeadKind,
    HyperParameters,
    LabelScores,
    MetadataReader,
    config_count,
    config_layers,
    config_number,
)
from edgeq.families.decoder_keys import windows_of
from edgeq.families.ops import Activation, Pooling
from edgeq.families.rope import Rope
from edgeq.families.rope_keys import rope_from_metadata, rope_metadata
from edgeq.families.sentence import POOLING, RANK, pooling_from_metadata, pooling_keys

_HEADS: dict[str, HeadKind] = {
    "ForSequenceClassification": "sequence",
    "ForTokenClassification": "tokens",
}
_LABEL_SCORES: dict[object, LabelScores] = {
    "regression": "none",
    "multi_label_classification": "sigmoid",
}
_MOST_LABELS = 1 << 20
_WINDOW, _PATTERN = "attention.sliding_window", "attention.sliding_window_pattern"
_LOCAL_THETA = "rope.freq_base_swa"
_LABELS, _HEAD_POOLING = "classifier.output_labels", "classifier.pooling_type"


class EncoderKeys(Family):
    """What of an encoder's description concerns its numbers. ``Encoder`` adds tensors and the forward pass."""

    kind = "encoder"
    config_names: ClassVar[Mapping[str, str]] = {}  # transformers' usual name of a field → this family's
    defaults: ClassVar[Mapping[str, Any]] = {}  # what transformers takes where config.json is silent
    activation: ClassVar[Activation] = "gelu"
    activation_name: ClassVar[str] = "gelu"  # in config.json
    positions: ClassVar[Literal["table", "rope"]] = "table"
    has_segments: ClassVar[bool] = True  # a table of token types
    llama_cpp_head: ClassVar[bool] = True  # its graph has the family's classifier of sequences

    def names(self, config: Mapping[str, Any]) -> Mapping[str, str]:
        """This config's names of transformers' usual fields, where they are others."""
        return self.config_names

    def from_config(self, config: Mapping[str, Any]) -> HyperParameters:
        config = {**self.defaults, **config}
        names = self.names(config)

        def count(key: str) -> int:
            return config_count(config, names.get(key, key))

        hidden, n_heads = count("hidden_size"), count("num_attention_heads")
        head_dim = _head_dim(config, names, hidden, n_heads)
        act = names.get("hidden_act", "hidden_act")
        if config.get(act, self.activation_name) != self.activation_name:
            raise InputError(
                f"config.json: {act} {config[act]!r} is not {self.activation_name}, as this family has it"
            )
        n_layers = config_layers(config, names.get("num_hidden_layers", "num_hidden_layers"))
        offset, table = self._position_offset(config), count("max_position_embeddings")
        if table <= offset:
            raise InputError(
                f"config.json: max_position_embeddings {table} leaves no position after pad_token_id {offset - 1}"
            )
        head, windows = _head(config), self._windows(config, n_layers)
        return HyperParameters(
            n_layers=n_layers,
            context=table - offset,
            hidden=hidden,
            ffn=count("intermediate_size"),
            n_heads=n_heads,
            n_kv_heads=n_heads,
            head_dim=head_dim,
            vocab=count("vocab_size"),
            norm_eps=config_number(config, names.get("layer_norm_eps", "layer_norm_eps"), 1e-12),
            rope=self._rope(config, head_dim),
            local_rope=self._local_rope(config, head_dim) if windows else None,
            windows=windows,
            n_token_types=count("type_vocab_size") if self.has_segments else 0,
            position_offset=offset,
            head=head,
            head_pooling=self._head_pooling(config),
            labels=_labels(config) if head != "none" else (),
            label_scores=_label_scores(config) if head != "none" else "softmax",
        )

    def _position_offset(self, config: Mapping[str, Any]) -> int:
        """How many rows of the table of positions are never used."""
        return 0

    def _rope(self, config: Mapping[str, Any], head_dim: int) -> Rope | None:
        return None

    def _local_rope(self, config: Mapping[str, Any], head_dim: int) -> Rope | None:
        return None

    def _windows(self, config: Mapping[str, Any], n_layers: int) -> tuple[int, ...]:
        return ()

    def _head_pooling(self, config: Mapping[str, Any]) -> Pooling:
        return "cls"

    # --- GGUF ---------------------------------------------------------------------------------------------------
    def from_metadata(self, reader: MetadataReader) -> HyperParameters:
        prefix = reader.architecture
        hidden, n_heads = reader.count("embedding_length"), reader.count("attention.head_count")
        if hidden % n_heads:
            raise InputError(
                f"GGUF metadata {prefix}.embedding_length: {hidden} is not a multiple of {n_heads} heads"
            )
        act = reader.metadata.get(f"{prefix}.hidden_activation", self.activation_name)
        if act != self.activation_name:
            raise InputError(
                f"GGUF metadata {prefix}.hidden_activation: {act!r} is not {self.activation_name}"
            )
        n_layers, head_dim = reader.layers(), hidden // n_heads
        windows = _windows_from_metadata(reader, n_layers)
        rope = rope_from_metadata(reader, head_dim) if self.positions == "rope" else None
        local = Rope(reader.number(_LOCAL_THETA, rope.theta), rope.dim) if rope and windows else None
        ranks = reader.metadata.get(f"{prefix}.pooling_type") == RANK
        return HyperParameters(
            n_layers=n_layers,
            context=reader.count("context_length"),
            hidden=hidden,
            ffn=reader.count("feed_forward_length"),
            n_heads=n_heads,
            n_kv_heads=n_heads,
            head_dim=head_dim,
            vocab=reader.rows("token_embd.weight"),
            norm_eps=reader.number("attention.layer_norm_epsilon"),
            rope=rope,
            local_rope=local,
            windows=windows,
            n_token_types=reader.shapes.get("token_types.weight", (0,))[0],
            pooling=pooling_from_metadata(reader),
            head="sequence" if ranks else "none",
            head_pooling=self._head_pooling_from_metadata(reader),
            labels=_labels_from_metadata(reader) if ranks else (),
            label_scores="sigmoid" if ranks and reader.rows("cls.output.weight") == 1 else "softmax",
        )

    def _head_pooling_from_metadata(self, reader: MetadataReader) -> Pooling:
        found = reader.metadata.get(f"{reader.architecture}.{_HEAD_POOLING}", POOLING["cls"])
        return "mean" if found == POOLING["mean"] else "cls"

    def metadata(self, hp: HyperParameters) -> dict[str, Any]:
        keys: dict[str, Any] = {
            "block_count": hp.n_layers,
            "context_length": hp.context,
            "embedding_length": hp.hidden,
            "feed_forward_length": hp.ffn,
            "attention.head_count": hp.n_heads,
            "attention.layer_norm_epsilon": hp.norm_eps,
            "attention.causal": False,
        }
        if hp.rope is not None:
            keys |= rope_metadata(hp.rope)
        if hp.windows:
            local = [window > 0 for window in hp.windows]
            keys |= {_WINDOW: max(hp.windows), _PATTERN: _period(local) or local}
            if hp.local_rope is not None:
                keys[_LOCAL_THETA] = hp.local_rope.theta
        return keys | self._output_keys(hp)

    def _output_keys(self, hp: HyperParameters) -> dict[str, Any]:
        self.check_dense(hp)
        if hp.head == "none":
            return pooling_keys(hp)
        if hp.head == "tokens" or not self.llama_cpp_head:
            what = "tokens" if hp.head == "tokens" else "sequences"
            raise InputError(
                f"config.json: architectures: llama.cpp's {self.architecture} graph has not this family's classifier "
                f"of {what}; ONNX has it (--to onnx)"
            )
        return {
            "pooling_type": RANK,
            _LABELS: list(hp.labels),
            _HEAD_POOLING: POOLING[hp.head_pooling],
        }


def _head_dim(config: Mapping[str, Any], names: Mapping[str, str], hidden: int, n_heads: int) -> int:
    """Values per head; raises InputError where the heads do not fill the width."""
    width, heads = (names.get(key, key) for key in ("hidden_size", "num_attention_heads"))
    if hidden % n_heads:
        raise InputError(f"config.json: {width} {hidden} is not a multiple of {heads} {n_heads}")
    if config.get("head_dim") not in (None, hidden // n_heads):
        raise InputError(f"config.json: head_dim {config['head_dim']!r} must be {width} divided by {heads}")
    return hidden // n_heads


def _head(config: Mapping[str, Any]) -> HeadKind:
    """What the checkpoint classifies, by the name of its class."""
    names = config.get("architectures") or [""]
    if not isinstance(names, list) or not isinstance(names[0], str):
        raise InputError(f"config.json: architectures must be a list of names, not {names!r}")
    return next((head for ending, head in _HEADS.items() if names[0].endswith(ending)), "none")


def _labels(config: Mapping[str, Any]) -> tuple[str, ...]:
    """The labels by number; raises InputError for holes. Upstream: transformers ``PreTrainedConfig``."""
    names = config.get("id2label")
    if names is None:
        n_labels = config_count(config, "num_labels", 2)
        if n_labels > _MOST_LABELS:
            raise InputError(f"config.json: num_labels {n_labels} is more than {_MOST_LABELS}")
        return _numbered(n_labels)
    if not isinstance(names, Mapping) or not names or not all(isinstance(one, str) for one in names.values()):
        raise InputError("config.json: id2label must give each label's number a text")
    if set(names) != {str(i) for i in range(len(names))}:
        raise InputError(f"config.json: id2label must number its {len(names)} labels from 0 on")
    return tuple(names[str(i)] for i in range(len(names)))


def _numbered(n_labels: int) -> tuple[str, ...]:
    return tuple(f"LABEL_{i}" for i in range(n_labels))


def _label_scores(config: Mapping[str, Any]) -> LabelScores:
    """Upstream: transformers ``TextClassificationPipeline.postprocess``."""
    one = len(_labels(config)) == 1
    return _LABEL_SCORES.get(config.get("problem_type"), "sigmoid" if one else "softmax")


def _labels_from_metadata(reader: MetadataReader) -> tuple[str, ...]:
    labels = reader.metadata.get(f"{reader.architecture}.{_LABELS}")
    n_labels = reader.rows("cls.output.weight")
    if labels is None:
        return _numbered(n_labels)
    if (
        not isinstance(labels, list)
        or len(labels) != n_labels
        or not all(isinstance(one, str) for one in labels)
    ):
        raise InputError(f"GGUF metadata {reader.architecture}.{_LABELS}: must name {n_labels} labels")
    return tuple(labels)


def _windows_from_metadata(reader: MetadataReader, n_layers: int) -> tuple[int, ...]:
    prefix = reader.architecture
    if not reader.metadata.get(f"{prefix}.{_WINDOW}"):
        return ()
    pattern = reader.metadata.get(f"{prefix}.{_PATTERN}", 3)
    if isinstance(pattern, list) and len(pattern) == n_layers:
        local = [bool(one) for one in pattern]
    elif isinstance(pattern, int) and pattern >= 0:
        local = every_other(n_layers, pattern)
    else:
        raise InputError(f"GGUF metadata {prefix}.{_PATTERN}: must say it for each of {n_layers} layers")
    return windows_of(local, reader.count(_WINDOW))


def every_other(n_layers: int, period: int) -> list[bool]:
    """Which layers have the window where the first of each ``period`` sees all.

    Upstream: ``llama_hparams::set_swa_pattern`` with ``dense_first``.
    """
    return [period == 0 or i % period != 0 for i in range(n_layers)]


def _period(local: list[bool]) -> int | None:
    """The period of such a pattern, None where it has none."""
    return next((n for n in range(2, len(local) + 1) if every_other(len(local), n) == local), None)
