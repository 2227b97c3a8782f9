"""Writes packed panels from encoded blocks: codes by ``rearrange``, the few numbers beside them in NumPy."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgeq.formats.blocks.base import Bytes
from edgeq.kernels_cpu.products.fields import Fields, Stored
from edgeq.kernels_cpu.products.layout import Layout
from edgeq.kernels_cpu.products.rearrange import write_codes


def interleave(layout: Layout, stored: Stored, encoded: Bytes, fields: Fields, out: Bytes) -> None:
    """Fill out, uint8 ``[panels, blocks, block_bytes]``, from ``panels · rows · blocks`` encoded blocks.

    ``encoded`` holds their codes, uint8 ``[n, bytes]``, as ``stored`` says. Both it and the fields are in the
    order of the rows: panel, row of the panel, block of the row.
    """
    panels, blocks, _ = out.shape
    write_codes(layout, stored, encoded, out)
    split = layout.units * layout.unit_bytes
    units = out[:, :, :split].reshape(panels, blocks, layout.units, layout.unit_bytes)
    at = layout.code_bytes
    for pairs in (fields.scales, fields.mins):
        if pairs is not None:
            units[..., at : at + layout.pair_bytes] = _pairs(layout, pairs, panels, blocks)
            at += layout.pair_bytes
    at = split
    for floats in (fields.d, fields.second):
        if floats is not None:
            out[:, :, at : at + layout.float_bytes] = _floats(layout, floats, panels, blocks)
            at += layout.float_bytes
    if fields.zeros is not None:
        out[:, :, at:] = fields.zeros.reshape(panels, layout.rows, blocks).transpose(0, 2, 1)


def _pairs(layout: Layout, values: NDArray[np.integer], panels: int, blocks: int) -> Bytes:
    """Neighbouring sub-blocks' bytes side by side: ``[panels, blocks, units, pair_bytes]``."""
    pairs = np.ascontiguousarray(values.astype(np.uint8)).view(np.uint16)
    ordered = pairs.reshape(panels, layout.rows, blocks, layout.units).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(ordered).view(np.uint8)


def _floats(layout: Layout, values: NDArray[np.floating], panels: int, blocks: int) -> Bytes:
    wanted = values.astype(np.float16 if layout.halves else np.float32)
    ordered = wanted.reshape(panels, layout.rows, blocks).transpose(0, 2, 1)
    return np.ascontiguousarray(ordered).view(np.uint8)
