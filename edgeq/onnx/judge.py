"""A quantized graph beside its source: the outputs, and the inner values that outputs are chosen or joined from."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path

import onnx_ir as ir

from edgeq.calibration.inputs import Arrays
from edgeq.formats.onnx.answers import Answers, find_answers
from edgeq.formats.onnx.infer import infer_shapes
from edgeq.formats.onnx.read import read_model
from edgeq.formats.onnx.save import save_model
from edgeq.formats.onnx.watch import watched_copy
from edgeq.onnx.compare import OutputCloseness, compare
from edgeq.runtimes.onnxruntime import OnnxSession


class Judge:
    """``prepared`` is the source's float graph as the passes get it; ``folder`` is for temporary files."""

    def __init__(self, source: Path, prepared: ir.Model, folder: Path, threads: int) -> None:
        self._source, self._folder, self._threads = source, folder, threads
        found = find_answers(prepared)
        known = {str(value.name) for node in read_model(source).graph for value in node.outputs}
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
        """The graph's answers beside the source's. Raises EdgeqError where the runtime refuses one."""
        return compare(self._float, self._loaded(model, config), samples, self.answers.outputs)

    def _loaded(self, model: ir.Model, config: Mapping[str, str]) -> OnnxSession:
        """The graph in the runtime, what it is judged by among its outputs."""
        inside = self.answers.inside
        watched = watched_copy(model, inside)[0] if inside else model
        with tempfile.TemporaryDirectory(prefix=".edgeq-trial-", dir=self._folder) as folder:
            path = Path(folder) / "trial.onnx"
            save_model(watched, path, force=True)
            return OnnxSession(path, self._threads, config)
