"""Running a float graph over samples and collecting the ranges of its inner values."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgeq.calibration.ranges import RangeCollector
from edgeq.formats.onnx.branches import nodes_outside_loops
from edgeq.formats.onnx.linear import find_linears
from edgeq.formats.onnx.save import save_model
from edgeq.formats.onnx.watch import watched_copy
from edgeq.runtimes.onnxruntime import Feeds, OnnxSession


def collect_ranges(
    model: ir.Model,
    samples: Iterable[Feeds],
    folder: Path,
    progress: Callable[[int], None] = lambda done: None,
    values: Sequence[ir.Value] = (),
) -> dict[str, RangeCollector]:
    """Statistics by value name, over feeds of any shapes, one sample in memory at a time.

    Watched are what linear layers read outside of loops, and ``values``. A copy of the graph with these as outputs is
    written to a temporary place in ``folder``.
    """
    outside = set(nodes_outside_loops(model.graph))
    linears = dict.fromkeys(linear.activation for linear in find_linears(model) if linear.node in outside)
    watched = list(dict.fromkeys((*linears, *values)))
    if not watched:
        return {}
    for index, value in enumerate(watched):
        value.name = value.name or f"activation_{index}"
    collectors = {str(value.name): RangeCollector(channels=value in linears) for value in watched}
    copy, outputs = watched_copy(model, list(collectors))
    with tempfile.TemporaryDirectory(prefix=".edgeq-calibration-", dir=folder) as temporary:
        path = Path(temporary) / "watched.onnx"
        save_model(copy, path, force=False)
        session = OnnxSession(path)
        given = {name: output for name, output in outputs.items() if output in session.outputs}
        for done, feeds in enumerate(samples, start=1):
            found = dict(zip(given, session.run(feeds, list(given.values())), strict=True))
            _observe(collectors, found | {name: feeds[name] for name in outputs if name in feeds}, feeds)
            progress(done)
    return collectors


def _observe(
    collectors: Mapping[str, RangeCollector], values: Mapping[str, NDArray[np.float32]], feeds: Feeds
) -> None:
    """Add one run's values; what stands at padded tokens is left out."""
    mask = feeds["attention_mask"].astype(bool) if "attention_mask" in feeds else None
    for name, collector in collectors.items():
        value = values[name]
        per_token = mask is not None and value.ndim > mask.ndim and value.shape[: mask.ndim] == mask.shape
        collector.add(value[mask] if per_token else value)
