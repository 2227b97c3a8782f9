"""Running a float graph over samples and collecting the ranges of its inner values."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgeq.calibration.ranges import RangeCollector
from edgeq.formats.onnx.branches import watchable_nodes
from edgeq.formats.onnx.convolution import find_convolutions
from edgeq.formats.onnx.edit import dims
from edgeq.formats.onnx.linear import find_linears
from edgeq.formats.onnx.save import save_model
from edgeq.formats.onnx.watch import watched_copy
from edgeq.runtimes.onnxruntime import Feeds, OnnxSession

# Between two runs the runtime's threads would wait at full speed, while statistics are taken: twice the CPU time.
_NO_SPINNING = {"session.intra_op.allow_spinning": "0"}


class Collector(Protocol):
    """What takes in a value of every run, or of every round of a loop."""

    def add(self, values: NDArray[np.float32]) -> None: ...


def collect_ranges(
    model: ir.Model,
    samples: Iterable[Feeds],
    folder: Path,
    progress: Callable[[int], None] = lambda done: None,
    values: Sequence[ir.Value] | None = None,
) -> dict[str, RangeCollector]:
    """Statistics by value name, over feeds of any shapes, one sample in memory at a time.

    Watched are ``values``, or what linear layers read that can be watched. A copy of the graph with these as outputs is
    written to a temporary place in ``folder``.
    """
    collectors = collectors_of(model, values)
    if collectors:
        collect(model, collectors, samples, folder, progress)
    return collectors


def collect(
    model: ir.Model,
    collectors: Mapping[str, Collector],
    samples: Iterable[Feeds],
    folder: Path,
    progress: Callable[[int], None] = lambda done: None,
) -> None:
    """Run a copy of the graph, in a temporary place in ``folder``; collectors by the name of the value."""
    copy, outputs = watched_copy(model, list(collectors))
    with tempfile.TemporaryDirectory(prefix=".edgeq-calibration-", dir=folder) as temporary:
        path = Path(temporary) / "watched.onnx"
        save_model(copy, path, force=False, external_from=0)  # mapped, not copied
        observe(path, outputs, collectors, samples, progress)


def collectors_of(model: ir.Model, values: Sequence[ir.Value] | None) -> dict[str, RangeCollector]:
    """A collector for each of ``values``, or of what linear layers read that can be watched.

    Values without a name get one.
    """
    seen = set(watchable_nodes(model.graph))
    linears = dict.fromkeys(linear.activation for linear in find_linears(model) if linear.node in seen)
    convolved = {c.node.inputs[0]: 1 - len(dims(c.tensor)) for c in find_convolutions(model)}
    watched = list(dict.fromkeys(linears if values is None else values))
    for index, value in enumerate(watched):
        value.name = value.name or f"activation_{index}"
    return {
        str(value.name): RangeCollector(-1 if value in linears else convolved.get(value)) for value in watched
    }


def observe(
    path: Path,
    outputs: Mapping[str, str],
    collectors: Mapping[str, Collector],
    samples: Iterable[Feeds],
    progress: Callable[[int], None] = lambda done: None,
) -> None:
    """Run the graph of ``watched_copy`` over the samples; the collectors take in what it gives."""
    session = OnnxSession(path, config=_NO_SPINNING)
    given = {name: output for name, output in outputs.items() if output in session.outputs}
    for done, feeds in enumerate(samples, start=1):
        found = dict(zip(given, session.run(feeds, list(given.values())), strict=True))
        _take_in(collectors, found | {name: feeds[name] for name in outputs if name in feeds}, feeds)
        progress(done)


def _take_in(
    collectors: Mapping[str, Collector],
    values: Mapping[str, NDArray[np.float32] | list[NDArray[np.float32]]],
    feeds: Feeds,
) -> None:
    """Add one run's values; what stands at padded tokens is left out."""
    mask = feeds["attention_mask"].astype(bool) if "attention_mask" in feeds else None
    if mask is not None and mask.all():
        mask = None
    for name, collector in collectors.items():
        value = values[name]
        if isinstance(value, list):  # each round is a sample: a range must suit the first and the last
            for one in value:
                collector.add(one)
            continue
        per_token = mask is not None and value.ndim > mask.ndim and value.shape[: mask.ndim] == mask.shape
        collector.add(value[mask] if per_token else value)
