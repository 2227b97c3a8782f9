"""What a worker runs: something that answers requests. ``open_bundle`` makes it of a bundle of ours.

Any other runtime can stand in: a module with a function that takes the bundle's folder and returns a ``Model``, named
to ``Runner`` as ``module:function``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from edgeq.api import LoadedModel
from edgeq.apps.manifest import read_manifest
from edgeq.deploy.failures import Failure, ModelFailure
from edgeq.errors import FormatError, InputError


class Model(Protocol):
    """Answers requests, one at a time."""

    def answer(self, request: Mapping[str, Any]) -> Any:
        """What JSON can hold; may raise ModelFailure with a kind, MemoryError, or anything else."""


class GGUFModel:
    """A GGUF file in the embedded engine.

    A request has ``prompt`` or ``messages`` and the options of ``LoadedModel.generate`` (``max_tokens``, ``stop``,
    ``temperature`` …), and the answer is a text; or it has ``texts``, and the answer is a list of vectors.
    """

    def __init__(self, path: Path) -> None:
        self._model = LoadedModel(path)

    def answer(self, request: Mapping[str, Any]) -> Any:
        options = dict(request)
        try:
            if "texts" in options:
                return self._model.embed(list(options["texts"])).tolist()
            if "messages" in options:
                return self._model.chat(options.pop("messages"), **options)
            if "prompt" in options:
                return self._model.generate(options.pop("prompt"), **options)
        except (
            FormatError
        ):  # once it is open, the one breach that is found later is of logits that are no numbers
            raise ModelFailure(Failure.nan) from None
        raise InputError("a request has a prompt, messages or texts")


def open_bundle(folder: str) -> Model:
    """The model of a bundle for ``edgeq`` or another app that loads GGUF; raises EdgeqError."""
    manifest = read_manifest(Path(folder))
    path = Path(folder) / manifest["main"]
    if path.suffix != ".gguf":
        raise InputError(f"{path}: the embedded engine runs GGUF; give Runner an opener for other files")
    return GGUFModel(path)
