"""A quantized graph beside its source: the outputs, and the inner values that outputs are chosen or joined from."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgeq.calibration.inputs import Arrays
from edgeq.formats.onnx.answers import Answers, find_answers
from edgeq.formats.onnx.infer import infer_shapes
from edgeq.formats.onnx.read import read_model
from edgeq.formats.onnx.save import save_model
from edgeq.formats.onnx.watch import watched_copy
from edgeq.onnx.compare import OutputCloseness, compare
from edgeq.runtimes.onnxruntime import OnnxSession

_MOST_REMEMBERED = 128 << 20  # bytes


class _Remembered:
    """A session's answers to some samples, in memory as far as they are not too large."""

    def __init__(self, session: OnnxSession, samples: list[Arrays]) -> None:
        self.samples, self.outputs = samples, session.outputs
        self._session, self._left = session, _MOST_REMEMBERED
        self._answers: dict[int, list[NDArray[np.float32]]] = {}  # by the identity of a sample in the list

    def run(self, feeds: Arrays, outputs: Sequence[str]) -> list[NDArray[np.float32]]:
        if id(feeds) in self._answers:
            return self._answers[id(feeds)]
        found = self._session.run(feeds, outputs)
        self._left -= sum(np.asarray(one).nbytes for one in found)
        if self._left >= 0:
            self._answers[id(feeds)] = found
        return found


class Judge:
    """``prepared`` is the source's float graph as the passes get it; ``folder`` is for temporary files."""

    def __init__(self, source: Path, prepared: ir.Model, folder: Path, threads: int) -> None:
        self._source, self._folder, self._threads = source, folder, threads
        found = find_answers(prepared)
        known = {str(value.name) for node in read_model(source).graph for value in node.outputs}
        self._remembered: _Remembered | None = None
        self.answers = found if known.issuperset(found.inside) else Answers()

    @cached_property
    def _float(self) -> OnnxSession:
        if not self.answers.inside:
            return OnnxSession(self._source, self._threads)
        model = read_model(self._source)
        infer_shapes(model)
        return self._loaded(model, {})

    def compare(
        self, model: ir.Model, config: Mapping[str, str], samples: Iterable[Arrays]
    ) -> list[OutputCloseness]:
        """The graph's answers beside the source's. Raises EdgeqError where the runtime refuses one.

        A list of samples is taken for one that comes again, with the next trial: the source's answers are kept.
        """
        if isinstance(samples, list):
            if self._remembered is None or self._remembered.samples is not samples:
                self._remembered = _Remembered(self._float, samples)
            return compare(self._remembered, self._loaded(model, config), samples, self.answers.outputs)
        return compare(self._float, self._loaded(model, config), samples, self.answers.outputs)

    def _loaded(self, model: ir.Model, config: Mapping[str, str]) -> OnnxSession:
        """The graph in the runtime, what it is judged by among its outputs."""
        inside = self.answers.inside
        watched = watched_copy(model, inside)[0] if inside else model
        with tempfile.TemporaryDirectory(prefix=".edgeq-trial-", dir=self._folder) as folder:
            path = Path(folder) / "trial.onnx"
            save_model(watched, path, force=True)
            return OnnxSession(path, self._threads, config)
