"""ONNX Runtime in the provider that the file was made for, with the session options that edgeq wrote beside it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgeq.bench.engines import Kind, engine
from edgeq.errors import EdgeqError

if TYPE_CHECKING:
    from edgeq.runtimes.onnxruntime import Feeds, OnnxSession

_IDS = 100  # ids below it are in every vocabulary


class _Onnx:
    vocab = _IDS

    def __init__(self, session: OnnxSession) -> None:
        self._session = session
        if any(name.startswith("past_key_values.") for name in session.inputs):
            self.kind: Kind = "decoder"
        else:
            self.kind = "encoder" if "input_ids" in session.inputs else "graph"
        if self.kind == "graph":
            self.vocab, self._feeds = 0, _made_up(session)

    def read(self, tokens: Sequence[int]) -> None:
        from edgeq.runtimes.onnxruntime import encoder_feeds

        if self.kind == "decoder":
            self._past = self._session.empty_past()
            self._feed(tokens)
        elif self.kind == "encoder":
            self._session.run(encoder_feeds([tokens]), self._session.outputs)
        else:
            self._session.run(self._feeds, self._session.outputs)

    def step(self, token: int) -> None:
        self._feed([token])

    def _feed(self, tokens: Sequence[int]) -> None:
        from edgeq.runtimes.onnxruntime import decoder_feeds

        _, *present = self._session.run(decoder_feeds(tokens, self._past), self._session.outputs)
        self._past = self._session.past_of(present)


def _made_up(session: OnnxSession) -> Feeds:
    from edgeq.calibration.inputs import Input
    from edgeq.calibration.made_up import made_up_samples

    def accepts(feeds: Feeds) -> bool:
        try:
            session.run(feeds, session.outputs)
        except EdgeqError:
            return False
        return True

    sizes = [
        Input(name, np.dtype(session.types[name]), tuple(shape)) for name, shape in session.inputs.items()
    ]
    return next(iter(made_up_samples(sizes, accepts).iterate()))


@engine("onnxruntime")
def open_model(path: Path, threads: int, room: int) -> _Onnx:
    """Tokens of any text: a graph computes as long whatever they say."""
    from edgeq.onnx.sessions import open_session

    return _Onnx(open_session(path, threads))
