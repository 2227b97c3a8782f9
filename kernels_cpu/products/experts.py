"""Products of a mixture of experts: each row of activations with the matrices that it was sent to."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgeq.formats.blocks.base import Floats
from edgeq.formats.errors import EdgeqError
from edgeq.kernels_cpu import threads
from edgeq.kernels_cpu.jit import kernel
from edgeq.kernels_cpu.products import Packed, quantized_for
from edgeq.kernels_cpu.products.panels import many_rows, one_row
from edgeq.kernels_cpu.products.tiles import ROWS
from edgeq.kernels_cpu.quantized_activations import Quantized


class _Groups(NamedTuple):
    """Rows put together by expert: one alone, or filled up to whole tiles."""

    bounds: NDArray[np.int64]  # [experts in use, 3]: expert, first row, last
    places: NDArray[np.int64]  # [rows]: where each of them stands
    size: int


def expert_product(x: Floats, packed: Packed, rows: NDArray[np.int64], experts: NDArray[np.int64]) -> Floats:
    """``x[rows[i]] @ matrix(experts[i]).T`` for each i, float32 ``[len(rows), N]``.

    x is float32 ``[T, K]`` and quantized once, whatever number of experts a row goes to; ``packed`` is stacked.
    Raises EdgeqError for shapes that do not fit and for numbers of rows or experts that are not there. Plain
    twin: ``tests/kernels_cpu/plain_products.py``.
    """
    _check(x, packed, rows, experts)
    if not len(rows) or not packed.n:
        return np.zeros((len(rows), packed.n), np.float32)
    groups = _grouped(experts)
    quantized = _spread(quantized_for(packed, x), rows, groups)
    panels = len(packed.data) // packed.stacked
    out = np.zeros((groups.size, panels * packed.layout.rows), np.float32)
    work = packed.layout.rows * quantized.codes.size
    threads.run(expert_rows, panels, work, packed.layout, packed.data, panels, groups.bounds, *quantized, out)
    return np.ascontiguousarray(out[groups.places, : packed.n])


def _check(x: Floats, packed: Packed, rows: NDArray[np.int64], experts: NDArray[np.int64]) -> None:
    name = packed.layout.format.name
    if x.ndim != 2 or x.shape[1] != packed.columns:
        raise EdgeqError(f"{name}: activations must be [T, {packed.columns}], not {list(x.shape)}")
    if rows.ndim != 1 or rows.shape != experts.shape:
        raise EdgeqError(f"{name}: rows {list(rows.shape)} and experts {list(experts.shape)} must be pairs")
    for what, numbers, end in (("rows", rows, len(x)), ("experts", experts, packed.stacked)):
        if len(numbers) and not (numbers.min() >= 0 and numbers.max() < end):
            raise EdgeqError(f"{name}: {what} must be from 0 to {end - 1}")


def _grouped(experts: NDArray[np.int64]) -> _Groups:
    used, counts = np.unique(experts, return_counts=True)
    sizes = np.where(counts == 1, 1, -(-counts // ROWS) * ROWS)
    ends = np.cumsum(sizes)
    within = np.arange(len(experts)) - np.repeat(np.cumsum(counts) - counts, counts)
    places = np.empty(len(experts), np.int64)
    places[np.argsort(experts, kind="stable")] = np.repeat(ends - sizes, counts) + within
    return _Groups(np.stack([used, ends - sizes, ends], axis=1).astype(np.int64), places, int(ends[-1]))


def _spread(x: Quantized, rows: NDArray[np.int64], groups: _Groups) -> Quantized:
    """The rows at their places, zeros between."""
    spread = []
    for array in x:
        places = np.zeros((groups.size, array.shape[1]), array.dtype)
        places[groups.places] = array[rows]
        spread.append(places)
    return Quantized(*spread)


@kernel
def expert_rows(first, last, layout, packed, panels, bounds, codes, scales, words, out):
    """Add panels first..last (of ``panels``) of each expert in use times its rows to out; see ``one_row``.

    Threads share each expert's panels, not the experts, so that one with many rows keeps none of them waiting.
    """
    for i in range(len(bounds)):
        expert, start, end = bounds[i]
        weights = packed[expert * panels : (expert + 1) * panels]
        x, d, w, to = codes[start:end], scales[start:end], words[start:end], out[start:end]
        if end - start == 1:
            one_row(first, last, layout, weights, x, d, w, to)
        else:
            many_rows(first, last, layout, weights, x, d, w, to)
