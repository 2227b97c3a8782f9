"""What a worker runs: something that answers requests. ``open_bundle`` makes it of a bundle of ours.

Any other runtime can stand in: a module with a function that takes the bundle's folder and returns a ``Model``, named
to ``Runner`` as ``module:function``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from edgeq.apps.manifest import read_manifest
from edgeq.deploy.failures import Failure, ModelFailure
from edgeq.errors import InputError, NotFiniteError
from edgeq.runtimes.engines import file_kind


class Model(Protocol):
    """Answers requests, one at a time."""

    def answer(self, request: Mapping[str, Any]) -> Any:
        """What JSON can hold; may raise ModelFailure with a kind, MemoryError, or anything else."""


class TextModel:
    """A GGUF file in the embedded engine, or an ONNX file with its tokenizer in ONNX Runtime.

    A request has ``prompt`` or ``messages`` and the options of ``LoadedModel.generate`` (``max_tokens``, ``stop``,
    ``temperature`` …), and the answer is a text; or ``texts``, and the answer is a list of vectors; or ``classify``,
    texts again, and the answer is a list of probabilities by label.
    """

    def __init__(self, path: Path) -> None:
        from edgeq.api import LoadedModel  # a bare graph does without the engine

        self._model = LoadedModel(path)

    def answer(self, request: Mapping[str, Any]) -> Any:
        options = dict(request)
        try:
            if "texts" in options:
                return self._model.embed(list(options["texts"])).tolist()
            if "classify" in options:
                return self._model.classify(list(options["classify"]))
            if "messages" in options:
                return self._model.chat(options.pop("messages"), **options)
            if "prompt" in options:
                return self._model.generate(options.pop("prompt"), **options)
        except NotFiniteError:
            raise ModelFailure(Failure.nan) from None
        raise InputError("a request has a prompt, messages, texts or texts to classify")


class GraphModel:
    """An ONNX file of any kind, in ONNX Runtime with the session options beside it.

    A request has ``inputs``, by name the numbers in nested lists; the answer has the outputs, likewise.
    """

    def __init__(self, path: Path) -> None:
        from edgeq.onnx.sessions import open_session

        self._session = open_session(path)

    def answer(self, request: Mapping[str, Any]) -> Any:
        import numpy as np

        if "inputs" not in request:
            raise InputError("a request to a graph without a tokenizer has inputs")
        types = self._session.types
        feeds = {name: np.asarray(value, types.get(name)) for name, value in request["inputs"].items()}
        values = self._session.run(feeds, self._session.outputs)
        return {name: value.tolist() for name, value in zip(self._session.outputs, values, strict=True)}


def open_bundle(folder: str) -> Model:
    """The model of a bundle of GGUF or ONNX, whatever app it is for; raises EdgeqError."""
    manifest = read_manifest(Path(folder))
    path = Path(folder) / manifest["main"]
    is_graph = file_kind(path) == "onnx"
    if not is_graph and path.suffix != ".gguf":
        raise InputError(f"{path}: is neither GGUF nor ONNX; give Runner an opener for other files")
    has_texts = not is_graph or "tokenizer.json" in manifest["files"]
    return TextModel(path) if has_texts else GraphModel(path)
