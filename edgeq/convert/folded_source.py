"""A model with AWQ's scales folded in: norms divided, the matrices that read them multiplied. It computes the same.

Folded are the norm before attention and the one before the feed-forward, where all that reads them are matrices of
their own (no experts). It is a checkpoint like the one it wraps, so both formats are made of it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from edgeq.calibration.grams import read_in_groups
from edgeq.calibration.samples import Calibration
from edgeq.engine import model as engine
from edgeq.formats.checkpoint.quantized import Grid as Integers
from edgeq.methods import Grid, Statistics
from edgeq.methods.awq import awq_scales
from edgeq.source import SourceModel

Floats = NDArray[np.float32]
GridOf = Callable[[str], Grid | None]

AWQ = "awq"  # the method's name
_READERS = {
    "attn_norm": ("attn_q", "attn_k", "attn_v", "attn_qkv"),
    "ffn_norm": ("ffn_gate", "ffn_up"),
}


class FoldedSource:
    """The wrapped checkpoint's tensors, some of them scaled; everything else is its own."""

    def __init__(self, source: SourceModel) -> None:
        self._source = source
        self._scales: dict[
            str, Floats
        ] = {}  # that multiply the columns of a matrix, or the values of a vector

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)

    def fold(self, norm: str, readers: list[str], scales: Floats) -> None:
        """Divide a norm (its bias, too) by the scales, multiply the columns of its readers."""
        self._scales |= dict.fromkeys(readers, scales)
        for part in ("weight", "bias"):
            if self._source.has(f"{norm}.{part}"):
                self._scales[f"{norm}.{part}"] = np.float32(1) / scales

    def layout(self, name: str) -> str | None:
        return None if name in self._scales else self._source.layout(name)

    def grid(self, name: str, start: int, stop: int) -> Integers | None:
        return None if name in self._scales else self._source.grid(name, start, stop)

    def rows(self, name: str, start: int, stop: int) -> Floats:
        rows = self._source.rows(name, start, stop)
        return rows * self._scales[name] if name in self._scales else rows

    def array(self, name: str) -> Floats:
        values = self._source.array(name)
        return values * self._scales[name] if name in self._scales else values


def awq_source(source: SourceModel, grid_of: GridOf, calibration: Calibration) -> tuple[SourceModel, str]:
    """The checkpoint with scales folded in, and a line on that; ``grid_of`` says how a matrix will be rounded.

    Raises EdgeqError.
    """
    model, folded = engine.from_source(source), FoldedSource(source)
    samples = calibration.samples(model, source.tokenizer())
    count = 0
    for (statistics, _), _replace in read_in_groups(model, samples, lambda name: name.startswith("blk.")):
        for norm, names in _groups(source, statistics).items():
            grids = [grid_of(name) for name in names]
            known = [grid for grid in grids if grid is not None]
            if len(known) < len(names):
                continue
            weights = [source.array(name) for name in names]
            folded.fold(norm, names, awq_scales(weights, statistics[names[0]], known))
            count += 1
            calibration.progress("scaling", count, 2 * model.hp.n_layers)
    tokens = sum(map(len, samples))
    note = (
        f"columns of {count} groups of weights scaled on {tokens:,} tokens of {calibration.text.name} (awq)"
    )
    return cast(SourceModel, folded), note


def _groups(source: SourceModel, statistics: dict[str, Statistics]) -> dict[str, list[str]]:
    """The matrices that read a norm, by its name, where nothing else does."""
    found: dict[str, list[str]] = {}
    layers = dict.fromkeys(name.rsplit(".", 2)[0] for name in statistics)
    for layer in layers:
        for norm, roles in _READERS.items():
            names = [n for role in roles if (n := f"{layer}.{role}.weight") in statistics]
            if not names or not source.has(f"{layer}.{norm}.weight"):
                continue
            own = statistics[names[0]]
            readers = [name for name, each in statistics.items() if each is own]
            if sorted(readers) == sorted(names):
                found[f"{layer}.{norm}"] = names
    return found
