"""A model's weights as integers that were chosen on what its layers read: ONNX's ``int4`` and ``int8-blocks``.

The model it wraps reads the text layer by layer; each layer's integers go to a temporary file. To the ONNX exporter
they are integers that others made of the weights, which it copies bit for bit.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from edgeq.calibration.grams import read_in_groups
from edgeq.calibration.samples import Calibration
from edgeq.convert.row_store import RowStore
from edgeq.engine import model as engine
from edgeq.errors import EdgeqError, InputError
from edgeq.formats.checkpoint.quantized import Grid
from edgeq.formats.onnx.blocked import Scheme
from edgeq.gguf_source import GGUFSource
from edgeq.methods import METHODS, IntegerGrid, Statistics
from edgeq.source import ModelSource, SourceModel
from edgeq.wording import counted

Floats = NDArray[np.float32]

_ROUTER = "ffn_gate_inp"  # stays float
_LAYOUT = "by edgeq, on the calibration text"


@dataclass
class _Weight:
    """What is kept in memory of a weight's integers; the codes are in the file."""

    scales: Floats
    zeros: NDArray[np.int16]
    groups: NDArray[np.int64]


class CalibratedSource:
    """A ``ModelSource`` some of whose weights are integers; everything else is the wrapped source's."""

    def __init__(self, source: ModelSource, store: RowStore, calibration: Calibration) -> None:
        self._source, self._store, self.calibration = source, store, calibration
        self._weights: dict[str, _Weight] = {}
        self.tokens = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)

    def take(self, name: str, integers: Grid) -> None:
        """Keep a weight's integers."""
        self._store.add(name, integers.codes.astype(np.uint8))
        self._weights[name] = _Weight(integers.scales, integers.zeros, integers.groups)

    def note(self) -> str:
        """A line on what was done."""
        count, text = len(self._weights), self.calibration.text.name
        method = self.calibration.method
        return f"codes and scales of {counted(count, 'tensor')} chosen on {self.tokens:,} tokens of {text} ({method})"

    def layout(self, name: str) -> str | None:
        return _LAYOUT if name in self._weights else self._source.layout(name)

    def grid(self, name: str, start: int, stop: int) -> Grid | None:
        if name not in self._weights:
            return self._source.grid(name, start, stop)
        own, codes = self._weights[name], self._store.rows(name, (start, stop)).astype(np.int16)
        return Grid(codes, own.scales[start:stop], own.zeros[start:stop], own.groups)

    def rows(self, name: str, start: int, stop: int) -> Floats:
        grid = self.grid(name, start, stop) if name in self._weights else None
        return self._source.rows(name, start, stop) if grid is None else grid.values()


@contextmanager
def calibrated_source(
    source: ModelSource, scheme: Scheme, calibration: Calibration, folder: Path
) -> Iterator[tuple[ModelSource, CalibratedSource]]:
    """The source with integers for its linear layers, under both its types; a temporary file in ``folder``.

    Raises EdgeqError. What is no whole number of blocks, experts and a tied head are left to the exporter.
    """
    model, grid = _model(source), IntegerGrid(scheme)

    def wanted(name: str) -> bool:
        linear = name.endswith(".weight") and name != "token_embd.weight" and _ROUTER not in name
        return linear and len(source.shape(name)) == 2 and grid.fits(source.shape(name)[1])

    with RowStore.open(folder) as store:
        found = CalibratedSource(source, store, calibration)
        samples = calibration.samples(model, source.tokenizer())
        found.tokens = sum(map(len, samples))
        done, total = 0, sum(map(wanted, (spec.name for spec in model.family.tensors(model.hp))))
        for (statistics, _), replace in read_in_groups(model, samples, wanted):
            for name in list(statistics):  # a layer's matrices are large together
                replace(name, _choose(source, name, statistics.pop(name), grid, found))
                done += 1
                calibration.progress("calibrating", done, total)
        yield cast(ModelSource, found), found


def _model(source: ModelSource) -> engine.Model:
    if isinstance(source, GGUFSource):
        return engine.from_gguf(source.file)
    return engine.from_source(cast(SourceModel, source))  # or one that wraps it


def _choose(
    source: ModelSource, name: str, statistics: Statistics, grid: IntegerGrid, found: CalibratedSource
) -> Floats:
    """A weight's integers into the store; what they stand for."""
    weights = source.rows(name, 0, source.shape(name)[0])
    source.release(name)
    try:
        parts = METHODS[found.calibration.method](weights, statistics, grid)
    except EdgeqError as error:
        raise InputError(f"{source.path}: tensor {name}: {error}") from None
    found.take(name, grid.integers(parts))
    return parts.values(grid.lattice)
