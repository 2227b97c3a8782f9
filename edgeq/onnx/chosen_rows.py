"""The integers of an ONNX file's linear layers, chosen on what these read (``edgeq.methods``).

To the pass that writes them they are integers that others made of the weights, which it copies (``RowReader.grid``).
"""

from __future__ import annotations

from collections import Counter

import numpy as np
from numpy.typing import NDArray

from edgeq.calibration.graph_grams import read_graph_in_groups
from edgeq.formats.checkpoint.quantized import Grid
from edgeq.formats.onnx.blocked import Scheme
from edgeq.formats.onnx.branches import watchable_nodes
from edgeq.formats.onnx.linear import Linear, find_linears
from edgeq.formats.onnx.rows import rows_of
from edgeq.formats.table_codes import TableCodes
from edgeq.methods import METHODS, IntegerGrid
from edgeq.onnx.job import Job

Floats = NDArray[np.float32]


class ChosenRows:
    """A weight's integers in memory, a byte each; see ``RowReader``."""

    layout: str | None = "by edgeq, on the calibration data"

    def __init__(self, integers: Grid) -> None:
        self._codes = integers.codes.astype(np.uint8)
        self._rest = integers.scales, integers.zeros, integers.groups
        self.shape: tuple[int, int] = (self._codes.shape[0], self._codes.shape[1])

    def rows(self, start: int, stop: int) -> Floats:
        return self.grid(start, stop).values()

    def grid(self, start: int, stop: int) -> Grid:
        scales, zeros, groups = self._rest
        return Grid(self._codes[start:stop].astype(np.int16), scales[start:stop], zeros[start:stop], groups)

    def codes(self) -> TableCodes | None:
        return None

    def done(self) -> None:
        """They stay: the graph may be written again."""


def choose_rows(job: Job, scheme: Scheme, method: str) -> dict[str, ChosenRows]:
    """By the weight's name: layers whose rows are whole blocks, and whose weight nothing else has. Notes how many."""
    assert job.samples is not None
    grid, samples = IntegerGrid(scheme), job.samples
    linears = _candidates(job, grid)
    chosen: dict[str, ChosenRows] = {}

    def progress(done: int) -> None:
        job.progress("calibrating", done, max(samples.count, done))

    for group in read_graph_in_groups(job.model, linears, samples, job.folder, progress):
        for linear, statistics in group:
            reader = rows_of(linear.weight, linear.transposed)
            weights = np.ascontiguousarray(reader.rows(0, reader.shape[0]), np.float32)
            parts = METHODS[method](weights, statistics, grid)
            chosen[str(linear.weight.name)] = ChosenRows(grid.integers(parts))
            reader.done()
            job.progress("choosing integers", len(chosen), len(linears))
    job.notes.append(f"integers of {len(chosen)} layers chosen on {samples.name} ({method})")
    return chosen


def _candidates(job: Job, grid: IntegerGrid) -> list[Linear]:
    seen, layers = set(watchable_nodes(job.model.graph)), set(job.layers)
    readers = Counter(
        value for node in job.model.graph.all_nodes() for value in set(node.inputs) if value is not None
    )
    return [
        linear
        for linear in find_linears(job.model)
        if linear.node in seen
        and linear.name in layers
        and readers[linear.weight] == 1
        and grid.fits(linear.inputs_width)
    ]
