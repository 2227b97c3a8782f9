"""Blocked weights as initializers: their layouts, and their values, computed when the model is saved."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgeq.formats.onnx.blocked import BlockedRows, Quantize, Scheme, pack_rows
from edgeq.formats.onnx.blocked_grid import GridPlan
from edgeq.formats.onnx.edit import ERROR, HANDLING, ORIGIN, add_lazy_initializer
from edgeq.formats.onnx.rows import RowReader, pieces
from edgeq.formats.rounding_error import RoundingError

_DTYPES = {
    2: (ml_dtypes.int2, ml_dtypes.uint2),
    4: (ml_dtypes.int4, ml_dtypes.uint4),
    8: (np.int8, np.uint8),
}
LOSSLESS, ROUNDED = "repacked without loss", "re-rounded"

Spec = tuple[Any, tuple[int, ...]]  # dtype, shape
Array = NDArray[Any]


@dataclass(frozen=True)
class Layout:
    """How codes, scales and zeros of a weight (rows, columns) are stored.

    ``specs(rows, columns, scheme)`` are their dtypes and shapes, ``pack(blocked, columns)`` the arrays, which it makes
    of ``packed`` codes too where that is said.
    """

    name: str
    packed: bool
    specs: Callable[[int, int, Scheme], dict[str, Spec]]
    pack: Callable[[BlockedRows, int], dict[str, Array]]


def _packed_specs(rows: int, columns: int, scheme: Scheme) -> dict[str, Spec]:
    blocks = scheme.blocks_of(columns)
    return {
        "codes": (np.uint8, (rows, blocks, scheme.size * scheme.bits // 8)),
        "scales": (np.float32, (rows, blocks)),
        "zeros": (np.uint8, (rows, -(-blocks * scheme.bits // 8))),
    }


def _pack(blocked: BlockedRows, columns: int) -> dict[str, Array]:
    bits, (rows, blocks) = blocked.scheme.bits, blocked.scales.shape
    codes = blocked.packed_codes().reshape(rows, blocks, -1)
    arrays: dict[str, Array] = {"codes": codes, "scales": blocked.scales}
    return arrays if blocked.zeros is None else arrays | {"zeros": pack_rows(blocked.zeros, bits)}


def _row_specs(rows: int, columns: int, scheme: Scheme) -> dict[str, Spec]:
    dtype, blocks = _dtype(scheme), scheme.blocks_of(columns)
    return {
        "codes": (dtype, (rows, columns)),
        "scales": (np.float32, (rows, blocks)),
        "zeros": (dtype, (rows, blocks)),
    }


def _rows(blocked: BlockedRows, columns: int) -> dict[str, Array]:
    scheme = blocked.scheme
    dtype, codes = _dtype(scheme), blocked.codes[:, :columns].astype(np.int16)
    if scheme.symmetric:
        codes -= scheme.middle
    arrays: dict[str, Array] = {"codes": codes.astype(dtype), "scales": blocked.scales}
    return arrays if blocked.zeros is None else arrays | {"zeros": blocked.zeros.astype(dtype)}


def _column_specs(rows: int, columns: int, scheme: Scheme) -> dict[str, Spec]:
    return {name: (dtype, shape[::-1]) for name, (dtype, shape) in _row_specs(rows, columns, scheme).items()}


def _columns(blocked: BlockedRows, columns: int) -> dict[str, Array]:
    return {name: np.ascontiguousarray(array.T) for name, array in _rows(blocked, columns).items()}


def _dtype(scheme: Scheme) -> Any:
    """Signed where the zero is in the middle, so that ONNX needs no zeros."""
    signed, unsigned = _DTYPES[scheme.bits]
    return signed if scheme.symmetric else unsigned


# MatMulNBits; GatherBlockQuantized; DequantizeLinear along the last axis; DequantizeLinear along the first.
PACKED, PACKED_TABLE, ROWS, COLUMNS = (
    Layout("packed", True, _packed_specs, _pack),
    Layout("packed table", True, _packed_specs, _pack),
    Layout("rows", False, _row_specs, _rows),
    Layout("columns", False, _column_specs, _columns),
)


class BlockedStore:
    """A weight's initializers. The values of one are computed with those of the others, and kept until each was read.

    Attributes:
        scheme, order, offsets: as in ``GridPlan``; ``offsets`` is float32 ``[blocks, rows]`` or None.
        codes, scales, zeros: as the layout says; ``zeros`` is None in symmetric weights.
    """

    def __init__(
        self,
        model: ir.Model,
        name: str,
        reader: RowReader,
        layout: Layout,
        how: GridPlan | Scheme,
        quantize: Quantize,
    ) -> None:
        self._reader, self._layout, self._quantize = reader, layout, quantize
        self._plan = how if isinstance(how, GridPlan) else None
        self.scheme = how.scheme if isinstance(how, GridPlan) else how
        self.order = self._plan.order if self._plan else None
        self._waiting: dict[str, Array] = {}
        rows, columns = reader.shape
        specs = layout.specs(rows, columns, self.scheme)
        suffix = f"int{self.scheme.bits}"
        self.codes = self._add(model, f"{name}_{suffix}", "codes", specs)
        self.scales = self._add(model, f"{name}_scale", "scales", specs)
        self.zeros = self.offsets = None
        if not self.scheme.symmetric:
            self.zeros = self._add(model, f"{name}_zero_point", "zeros", specs)
        if self._plan and self._plan.offsets:
            shape = self.scheme.blocks_of(columns), rows
            self.offsets = self._add(model, f"{name}_offset", "offsets", {"offsets": (np.float32, shape)})
        self._note()

    def _add(self, model: ir.Model, name: str, part: str, specs: Mapping[str, Spec]) -> ir.Value:
        dtype, shape = specs[part]
        return add_lazy_initializer(model, name, dtype, shape, lambda: self._take(part))

    def _note(self) -> None:
        if self._reader.layout is not None:
            self.codes.meta[ORIGIN] = self._reader.layout
            self.codes.meta[HANDLING] = LOSSLESS if self._plan else ROUNDED

    def _take(self, part: str) -> Array:
        if part not in self._waiting:
            self._waiting = self._computed()
        return self._waiting.pop(part)

    def _computed(self) -> dict[str, Array]:
        rows, columns = self._reader.shape
        specs = dict(self._layout.specs(rows, columns, self.scheme))
        specs["offsets"] = np.float32, (self.scheme.blocks_of(columns), rows)
        whole: dict[str, Array] = {}
        error = RoundingError()
        for start, stop in pieces(self._reader):
            if self._plan is not None:
                arrays = self._copied(self._plan, start, stop)
            else:
                values = self._reader.rows(start, stop)
                blocked = self._quantize(values, self.scheme, packed=self._layout.packed)
                error += blocked.rounding_error(values)
                arrays = self._layout.pack(blocked, columns)
            for part, array in arrays.items():
                if part not in whole:
                    whole[part] = np.empty(specs[part][1], specs[part][0])
                lies_across = part == "offsets" or self._layout is COLUMNS
                whole[part][(slice(None), slice(start, stop)) if lies_across else slice(start, stop)] = array
        self._reader.done()
        self.codes.meta[ERROR] = error.relative
        return whole

    def _copied(self, plan: GridPlan, start: int, stop: int) -> dict[str, Array]:
        """Rows of the grid, and their offsets where the weight has some."""
        grid = self._reader.grid(start, stop)
        assert grid is not None
        arrays = self._layout.pack(plan.copied(grid), self._reader.shape[1])
        if plan.offsets:
            arrays["offsets"] = np.ascontiguousarray(grid.all_offsets()[:, plan.first_columns(grid)].T)
        return arrays
