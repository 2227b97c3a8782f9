"""The embedded engine: GGUF files packed where its steps do all of the model, else (and directories) exact."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgeq.bench.engines import Kind, engine


class _Embedded:
    def __init__(self, model: Any, kind: Kind, room: int) -> None:
        self.kind, self.vocab = kind, model.hp.vocab
        self._model, self._room = model, room

    def read(self, tokens: Sequence[int]) -> None:
        if self.kind == "encoder":
            self._model.hidden(tokens)
            return
        self._cache = self._model.new_cache(self._room)
        self._model.prefill(tokens, self._cache)

    def step(self, token: int) -> None:
        self._model.prefill([token], self._cache)


def _kind(model: Any) -> Kind:
    return "decoder" if model.family.generates(model.hp) else "encoder"


@engine("embedded")
def open_model(path: Path, threads: int, room: int) -> _Embedded:
    """Without the tokenizer, which times nothing."""
    from edgeq.engine import fast, model
    from edgeq.engine.steps import NotRecordableError
    from edgeq.formats.gguf.split import open_gguf
    from edgeq.kernels_cpu.threads import set_threads

    set_threads(threads)
    if path.is_dir():
        exact = model.open_model(path)
        return _Embedded(exact, _kind(exact), room)
    file = open_gguf(path)
    try:
        return _Embedded(fast.from_gguf(file), "decoder", room)
    except NotRecordableError:
        exact = model.from_gguf(file)
        return _Embedded(exact, _kind(exact), room)
