"""Running a float graph over a text and collecting the ranges of what its linear layers read."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgeq.calibration.ranges import RangeCollector
from edgeq.formats.onnx.linear import find_linears
from edgeq.formats.onnx.save import save_model
from edgeq.runtimes.onnxruntime import Feeds, OnnxSession


def collect_ranges(
    model: ir.Model,
    samples: Iterable[Feeds],
    folder: Path,
    progress: Callable[[int], None] = lambda done: None,
) -> dict[str, RangeCollector]:
    """Statistics by value name, over feeds of any shapes, one sample in memory at a time.

    A copy of the graph with its linear layers' inputs as outputs is written to a temporary place in ``folder``.
    """
    watched = list(dict.fromkeys(linear.activation for linear in find_linears(model)))
    if not watched:
        return {}
    outputs = list(model.graph.outputs)
    for index, value in enumerate(watched):
        value.name = value.name or f"activation_{index}"
        if value.type is None:
            value.type = ir.TensorType(ir.DataType.FLOAT)
    collectors = {str(value.name): RangeCollector() for value in watched}
    with tempfile.TemporaryDirectory(prefix=".edgeq-calibration-", dir=folder) as temporary:
        path = Path(temporary) / "watched.onnx"
        model.graph.outputs[:] = [*outputs, *(value for value in watched if value not in outputs)]
        try:
            save_model(model, path, force=False)
        finally:
            model.graph.outputs[:] = outputs
        session = OnnxSession(path)
        for done, feeds in enumerate(samples, start=1):
            _observe(collectors, session.run(feeds, list(collectors)), feeds)
            progress(done)
    return collectors


def _observe(
    collectors: Mapping[str, RangeCollector], values: Iterable[NDArray[np.float32]], feeds: Feeds
) -> None:
    """Add one run's values; what stands at padded tokens is left out."""
    mask = feeds["attention_mask"].astype(bool) if "attention_mask" in feeds else None
    for collector, value in zip(collectors.values(), values, strict=True):
        per_token = mask is not None and value.ndim > mask.ndim and value.shape[: mask.ndim] == mask.shape
        collector.add(value[mask] if per_token else value)
