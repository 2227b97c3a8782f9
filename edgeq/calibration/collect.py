"""Running a float graph over samples and collecting the ranges of its inner values."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgeq.calibration.ranges import RangeCollector
from edgeq.calibration.smoothed import Scales, smoothed_collectors
from edgeq.calibration.together import Run, Runner
from edgeq.formats.onnx.branches import watchable_nodes
from edgeq.formats.onnx.convolution import find_convolutions
from edgeq.formats.onnx.edit import dims
from edgeq.formats.onnx.linear import find_linears
from edgeq.formats.onnx.save import save_model
from edgeq.formats.onnx.watch import watched_copy
from edgeq.runtimes.onnxruntime import Feeds, OnnxSession

# Between two runs the runtime's threads would wait at full speed, while statistics are taken: twice the CPU time.
_NO_SPINNING = {"session.intra_op.allow_spinning": "0"}
_GRAPHS = (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)


class Collector(Protocol):
    """What takes in a value of every run, of one sample or of several, or of every round of a loop.

    ``add`` is as ``RangeCollector.add``.
    """

    def add(
        self,
        values: NDArray[np.float32],
        ends: NDArray[np.int64] | None = None,
        numbers: Sequence[int] | None = None,
    ) -> None: ...

    def finish(self) -> None: ...


def collect_ranges(
    model: ir.Model,
    samples: Iterable[Feeds],
    folder: Path,
    progress: Callable[[int], None] = lambda done: None,
    values: Sequence[ir.Value] | None = None,
    smoothed: Mapping[ir.Value, Scales] | None = None,
) -> dict[str, RangeCollector]:
    """Statistics by value name, over feeds of any shapes, a few samples in memory at a time.

    Watched are ``values``, or what linear layers read that can be watched; those in ``smoothed`` as they will be when
    they are divided by these scales. A copy of the graph with them as outputs is written to a temporary place in
    ``folder``.
    """
    collectors = collectors_of(model, values, smoothed)
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
        observe(copy, path, outputs, collectors, samples, progress)


def collectors_of(
    model: ir.Model,
    values: Sequence[ir.Value] | None = None,
    smoothed: Mapping[ir.Value, Scales] | None = None,
) -> dict[str, RangeCollector]:
    """A collector for each of ``values``, or of what linear layers read that can be watched.

    Values without a name get one.
    """
    seen = set(watchable_nodes(model.graph))
    linears = dict.fromkeys(linear.activation for linear in find_linears(model) if linear.node in seen)
    convolved = {c.node.inputs[0]: 1 - len(dims(c.tensor)) for c in find_convolutions(model)}
    watched = list(dict.fromkeys(linears if values is None else values))
    for index, value in enumerate(watched):
        value.name = value.name or f"activation_{index}"
    divided = smoothed_collectors(smoothed or {})
    return {
        str(value.name): divided.get(value)
        or RangeCollector(-1 if value in linears else convolved.get(value))
        for value in watched
    }


def observe(
    model: ir.Model,
    path: Path,
    outputs: Mapping[str, str],
    collectors: Mapping[str, Collector],
    samples: Iterable[Feeds],
    progress: Callable[[int], None] = lambda done: None,
) -> None:
    """Run the graph of ``watched_copy``, saved as ``path``, over the samples; the collectors take in what it gives."""
    session = OnnxSession(path, config=_NO_SPINNING)
    given = {name: output for name, output in outputs.items() if output in session.outputs}
    plain = not any(a.type in _GRAPHS for node in model.graph for a in node.attributes.values())
    done = 0
    for run in Runner(session, given, plain).runs(samples):
        fed = {name: run.feeds[name] for name in outputs if name in run.feeds}
        _take_in(collectors, {**run.values, **fed}, run)
        for _ in run.numbers:
            done += 1
            progress(done)
    for collector in collectors.values():
        collector.finish()


def _take_in(
    collectors: Mapping[str, Collector],
    values: Mapping[str, NDArray[np.float32] | list[NDArray[np.float32]]],
    run: Run,
) -> None:
    """Add one run's values; what stands at padded tokens is left out."""
    mask = run.feeds["attention_mask"].astype(bool) if "attention_mask" in run.feeds else None
    kept = np.zeros(0) if mask is None else mask.reshape(len(run.numbers), -1).sum(axis=1)
    if mask is not None and mask.all():
        mask = None
    for name, collector in collectors.items():
        value = values[name]
        if isinstance(value, list):  # each round is a sample: a range must suit the first and the last
            for one in value:
                collector.add(one)
            continue
        per_token = mask is not None and value.ndim > mask.ndim and value.shape[: mask.ndim] == mask.shape
        if mask is not None and per_token:
            value, sizes = value[mask], kept * math.prod(value.shape[mask.ndim :])
        else:
            sizes = np.full(len(run.numbers), value.size // len(run.numbers))
        collector.add(value, sizes.cumsum(), run.numbers)
