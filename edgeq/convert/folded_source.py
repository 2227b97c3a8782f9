"""A model with AWQ's scales folded in: columns of matrices multiplied, what feeds them divided. It computes the same.

What feeds a matrix, and so is divided, is the norm before attention or before the feed-forward, where all that reads
it are matrices of their own (no experts); the rows of the values, for what attention gives (the query heads of one
key head share them); and the rows of ``ffn_up``, for ``ffn_down`` of a gated feed-forward. Rounding a row of a matrix
in blocks does not mind its size. It is a checkpoint like the one it wraps, so both formats are made of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from edgeq.calibration.grams import read_in_groups
from edgeq.calibration.samples import Calibration
from edgeq.engine import model as engine
from edgeq.formats.checkpoint.quantized import Grid as Integers
from edgeq.formats.table_codes import TableCodes
from edgeq.methods import Grid, Statistics
from edgeq.methods.awq import AWQ, awq_scales
from edgeq.source import SourceModel

Floats = NDArray[np.float32]
GridOf = Callable[[str], Grid | None]

_READERS = {
    "attn_norm": ("attn_q", "attn_k", "attn_v", "attn_qkv"),
    "ffn_norm": ("ffn_gate", "ffn_up"),
}


class _Fold(NamedTuple):
    """Matrices that read the same, and what is divided for them."""

    readers: list[str]
    feeder: str  # a norm, or a matrix whose rows are divided; without ".weight"
    rows: slice = slice(None)  # of the feeder, which has one for each scale
    shared: NDArray[np.intp] | None = None  # by which scale a column is multiplied, if not by its own


class FoldedSource:
    """The wrapped checkpoint's tensors, some of them scaled; everything else is its own."""

    def __init__(self, source: SourceModel) -> None:
        self._source = source
        self._columns: dict[str, Floats] = {}  # that multiply the columns of a matrix
        self._rows: dict[str, Floats] = {}  # that multiply the rows of a matrix, or the values of a vector

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)

    def fold(self, fold: _Fold, scales: Floats) -> None:
        """Multiply the columns of the readers, divide what feeds them (its bias, too)."""
        self._columns |= dict.fromkeys(fold.readers, scales)
        each = scales
        if fold.shared is not None:
            each = np.empty(fold.shared.max() + 1, np.float32)
            each[fold.shared] = scales
        for name in (f"{fold.feeder}.weight", f"{fold.feeder}.bias"):
            if self._source.has(name):
                inverse = np.ones(self._source.shape(name)[0], np.float32)
                inverse[fold.rows] = np.float32(1) / each
                self._rows[name] = inverse

    def layout(self, name: str) -> str | None:
        return None if self._is_scaled(name) else self._source.layout(name)

    def grid(self, name: str, start: int, stop: int) -> Integers | None:
        return None if self._is_scaled(name) else self._source.grid(name, start, stop)

    def codes(self, name: str) -> TableCodes | None:
        return None if self._is_scaled(name) else self._source.codes(name)

    def rows(self, name: str, start: int, stop: int) -> Floats:
        return self._scaled(name, self._source.rows(name, start, stop), slice(start, stop))

    def array(self, name: str) -> Floats:
        return self._scaled(name, self._source.array(name), slice(None))

    def _is_scaled(self, name: str) -> bool:
        return name in self._columns or name in self._rows

    def _scaled(self, name: str, values: Floats, rows: slice) -> Floats:
        if name in self._columns:
            values = values * self._columns[name]
        if name in self._rows:
            factors = self._rows[name][rows]
            values = values * (factors if values.ndim == 1 else factors[:, None])
        return values


def awq_source(source: SourceModel, grid_of: GridOf, calibration: Calibration) -> tuple[SourceModel, str]:
    """The checkpoint with scales folded in, and a line on that; ``grid_of`` says how a matrix will be rounded.

    Raises EdgeqError.
    """
    model, folded = engine.from_source(source), FoldedSource(source)
    samples = calibration.samples(model, source.tokenizer())
    count, names = 0, len(_READERS) + 2
    for (statistics, _), _replace in read_in_groups(model, samples, lambda name: name.startswith("blk.")):
        for fold in _folds(source, statistics):
            grids = [grid_of(name) for name in fold.readers]
            known = [grid for grid in grids if grid is not None]
            if len(known) < len(grids):
                continue
            weights = [source.array(name) for name in fold.readers]
            folded.fold(fold, awq_scales(weights, statistics[fold.readers[0]], known, fold.shared))
            count += 1
            calibration.progress("scaling", count, names * model.hp.n_layers)
    tokens = sum(map(len, samples))
    note = (
        f"columns of {count} groups of weights scaled on {tokens:,} tokens of {calibration.text.name} ({AWQ})"
    )
    return cast(SourceModel, folded), note


def _folds(source: SourceModel, statistics: dict[str, Statistics]) -> Iterator[_Fold]:
    """What can be folded in the layers that these are of."""
    for layer in dict.fromkeys(name.rsplit(".", 2)[0] for name in statistics):
        for norm, roles in _READERS.items():
            names = [n for role in roles if (n := f"{layer}.{role}.weight") in statistics]
            if not names or not source.has(f"{layer}.{norm}.weight"):
                continue
            own = statistics[names[0]]
            readers = [name for name, each in statistics.items() if each is own]
            if sorted(readers) == sorted(names):
                yield _Fold(names, f"{layer}.{norm}")
        if source.family.kind == "decoder":
            yield from _between_matrices(source, layer, statistics)


def _between_matrices(source: SourceModel, layer: str, statistics: dict[str, Statistics]) -> Iterator[_Fold]:
    """Values before the matrix that reads attention; ``ffn_up`` before ``ffn_down``."""
    hp = source.hp
    output, down = f"{layer}.attn_output.weight", f"{layer}.ffn_down.weight"
    width = hp.n_kv_heads * hp.head_dim
    if output in statistics:
        heads = np.arange(hp.n_kv_heads * hp.head_dim).reshape(hp.n_kv_heads, 1, hp.head_dim)
        shared = np.broadcast_to(heads, (hp.n_kv_heads, hp.n_heads // hp.n_kv_heads, hp.head_dim)).ravel()
        fused = not source.has(f"{layer}.attn_v.weight")
        values = slice(-width, None) if fused else slice(None)
        yield _Fold([output], f"{layer}.attn_qkv" if fused else f"{layer}.attn_v", values, shared)
    if down in statistics and getattr(source.family, "gated", False):
        yield _Fold([down], f"{layer}.ffn_up", slice(-hp.ffn, None))
