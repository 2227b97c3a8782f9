"""Gram matrices of what the linear layers of an ONNX graph read, while ONNX Runtime runs it over samples.

All are of the float graph: its layers are not read again after the ones before them were quantized, as a family's are
(``edgeq.calibration.grams``). Only as many as fit into memory are collected at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgeq.calibration.collect import collect
from edgeq.errors import InputError
from edgeq.formats.onnx.linear import Linear
from edgeq.methods import Statistics
from edgeq.runtimes.onnxruntime import Feeds

_GROUP_BYTES = 1 << 30


class _Sum:
    """Σ x·xᵀ over the rows of arrays ``[…, columns]``."""

    def __init__(self, columns: int) -> None:
        self.statistics = Statistics(np.zeros((columns, columns), np.float32), 0)

    def add(
        self,
        values: NDArray[np.float32],
        ends: NDArray[np.int64] | None = None,
        numbers: Sequence[int] | None = None,
    ) -> None:
        x = values.reshape(-1, len(self.statistics.gram)).astype(np.float32, copy=False)
        self.statistics.gram += x.T @ x
        self.statistics.tokens += len(x)

    def finish(self) -> None:
        """Nothing waits."""


def read_graph_in_groups(
    model: ir.Model,
    linears: Sequence[Linear],
    samples: Iterable[Feeds],
    folder: Path,
    progress: Callable[[int], None] = lambda done: None,
) -> Iterator[list[tuple[Linear, Statistics]]]:
    """The layers, which can be watched, with the statistics of what they read; layers that read the same share.

    Raises InputError where one reads NaN or infinity.
    """
    for group in _fitting(linears):
        sums = {_named(linear): _Sum(linear.inputs_width) for linear in group}
        with np.errstate(all="ignore"):  # what overflows is reported once
            collect(model, sums, samples, folder, progress)
        for name, found in sums.items():
            if not np.isfinite(np.diag(found.statistics.gram)).all():
                raise InputError(f"{name} is NaN or infinite with this calibration data; give other data")
        yield [(linear, sums[str(linear.activation.name)].statistics) for linear in group]


def _named(linear: Linear) -> str:
    """The name of what it reads, which gets one where it has none."""
    value = linear.activation
    value.name = value.name or f"{linear.name}_input"
    return value.name


def _fitting(linears: Sequence[Linear]) -> Iterator[list[Linear]]:
    """The layers in groups whose Gram matrices fit."""
    group: list[Linear] = []
    sizes: dict[ir.Value, int] = {}
    for linear in linears:
        own = 4 * linear.inputs_width**2
        if group and linear.activation not in sizes and sum(sizes.values()) + own > _GROUP_BYTES:
            yield group
            group, sizes = [], {}
        group.append(linear)
        sizes[linear.activation] = own
    if group:
        yield group
