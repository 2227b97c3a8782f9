"""ONNX graphs as ``edgeq.load`` and ``edgeq run`` see models: in ONNX Runtime, with the tokenizer beside them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgeq import chat as chat_templates
from edgeq import families, tokenization
from edgeq.chat import ChatTemplate
from edgeq.engine.decoders import Checked, Decoder
from edgeq.engine.ops import LABEL_SCORES, POOLS
from edgeq.errors import EdgeqError, InputError
from edgeq.families import HyperParameters
from edgeq.families.base import HeadKind
from edgeq.json_files import read_json
from edgeq.onnx.sessions import open_session
from edgeq.runtimes.onnxruntime import OnnxSession, decoder_feeds, encoder_feeds
from edgeq.sentence_transformers import read_modules

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Floats = NDArray[np.float32]

_SUBFOLDER = "onnx"  # where transformers.js and the Hub have graphs, the tokenizer one folder above
_UNKNOWN_LENGTH = 2**31  # without a config.json that is known
_EMBEDDING, _HIDDEN, _LOGITS = "sentence_embedding", "last_hidden_state", "logits"


def home_of(path: Path) -> Path:
    """The folder with a graph's tokenizer and config.json: its own, or the one above a folder called ``onnx``."""
    folder = path.absolute().parent
    above = folder.name == _SUBFOLDER and not (folder / "tokenizer.json").is_file()
    return folder.parent if above else folder


def config_beside(folder: Path) -> HyperParameters | None:
    """What the config.json of a graph's folder says; None where there is none of a family that is known."""
    if not (folder / "config.json").is_file():
        return None
    try:
        config = read_json(folder / "config.json", dict)
        return families.for_config(config, str(folder)).from_config(config)
    except EdgeqError:  # a graph of another family still answers
        return None


@dataclass(frozen=True)
class Facts:
    """What a graph and its config.json say: tokens it may read, width of its vectors (0: unknown), its classifier."""

    context: int
    vector_width: int
    head: HeadKind
    n_token_types: int


class GraphModel:
    """A graph that answers as ``edgeq.engine.model.Model`` does, as far as its outputs go."""

    def __init__(self, session: OnnxSession, folder: Path) -> None:
        self.session, self._config = session, config_beside(folder)
        modules, hp = read_modules(folder), self._config
        self._pooling = modules.pooling if modules else hp.pooling if hp else "mean"
        self._normalised = modules.normalised if modules else True
        self._dense = bool(modules and modules.dense)
        self.hp = Facts(
            hp.context if hp else _UNKNOWN_LENGTH,
            self._width(),
            hp.head if hp else "none",
            hp.n_token_types if hp else 0,
        )

    def logits(self, tokens: Sequence[int]) -> Floats:
        """Logits ``[T, vocab]`` after each token; raises InputError for what is no decoder with a cache."""
        self.check_decoder()
        feeds = decoder_feeds(tokens, self.session.empty_past())
        return self.session.run(feeds, [_LOGITS])[0][0]

    def embed(self, tokens: Sequence[int]) -> Floats:
        """One vector ``[C]``: the graph's own, or made of its hidden states as the model's files say."""
        if _EMBEDDING in self.session.outputs:
            return self.session.run(encoder_feeds([tokens]), [_EMBEDDING])[0][0]
        if _HIDDEN not in self.session.outputs:
            raise InputError(
                f"{self.session.path}: has no output {_EMBEDDING} or {_HIDDEN}, so it embeds nothing"
            )
        if self._dense:
            raise InputError(
                f"{self.session.path}: has no output {_EMBEDDING}, and modules.json has a Dense after the pooling; "
                "export the model again"
            )
        hidden = self.session.run(encoder_feeds([tokens]), [_HIDDEN])[0][0]
        vector: Floats = POOLS["mean" if self._pooling == "none" else self._pooling](hidden)[0]
        return vector / np.linalg.norm(vector) if self._normalised else vector

    def classify(
        self, tokens: Sequence[int], segments: Sequence[int] | None = None
    ) -> list[dict[str, float]]:
        """Probabilities by label, of the sequence (one) or of each token. Raises InputError without a classifier."""
        hp = self._config
        if hp is None or hp.head == "none" or _LOGITS not in self.session.outputs:
            raise InputError(
                f"{self.session.path}: has no classifier that the config.json beside it describes"
            )
        feeds = encoder_feeds([tokens])
        if segments is not None:
            feeds["token_type_ids"] = np.asarray([segments], np.int64)
        logits = self.session.run(feeds, [_LOGITS])[0]
        scores = LABEL_SCORES[hp.label_scores](logits.reshape(-1, logits.shape[-1]))
        return [dict(zip(hp.labels, map(float, row), strict=True)) for row in scores]

    def check_decoder(self) -> None:
        """Raise InputError for a graph without a cache."""
        if not any(name.startswith("past_key_values.") for name in self.session.inputs):
            path = self.session.path
            raise InputError(f"{path}: has no past_key_values inputs, so it is no decoder that can generate")

    def _width(self) -> int:
        shapes = {value.name: value.shape for value in self.session.runtime.get_outputs()}
        shape = shapes.get(_EMBEDDING) or shapes.get(_HIDDEN) or [0]
        return shape[-1] if isinstance(shape[-1], int) else 0


class _Sequence:
    """One text in progress."""

    def __init__(self, session: OnnxSession) -> None:
        self._session = session
        self._past = session.empty_past()

    def feed(self, tokens: Sequence[int]) -> Floats:
        feeds = decoder_feeds(tokens, self._past)
        logits, *present = self._session.run(feeds, self._session.outputs)
        self._past = self._session.past_of(present)
        return logits[0, -1]

    def reset(self) -> None:
        self._past = self._session.empty_past()


@dataclass
class Graph:
    """A graph with what its texts need; the counterpart of ``edgeq.engine.decoders.Embedded``."""

    path: Path
    model: GraphModel
    tokenizer: Tokenizer
    stop: frozenset[int]
    chat: ChatTemplate | None

    @property
    def folder(self) -> Path:
        """Where the model's small files are."""
        return home_of(self.path)

    def decoder(self, room: int) -> Decoder:
        """A new text; its cache grows as it needs. Raises InputError for what is no decoder."""
        self.model.check_decoder()
        return Checked(_Sequence(self.model.session), self.path)


def open_graph(path: Path, threads: int = 0) -> Graph:
    """Open an ONNX file with its session options and tokenizer. ``threads`` 0 leaves them to the runtime.

    Raises EdgeqError, also where no tokenizer.json lies in its folder, or above it where that is called ``onnx``.
    """
    folder = home_of(path)
    model = GraphModel(open_session(path, threads), folder)
    tokenizer, stop = tokenization.from_directory(folder), tokenization.end_tokens(folder)
    return Graph(path, model, tokenizer, stop, chat_templates.of_directory(folder))
