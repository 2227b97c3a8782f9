"""Writes packed panels from fields: the layout of ``layout``, in plain NumPy."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgeq.formats.blocks.base import Bytes
from edgeq.kernels_cpu.products.fields import Fields
from edgeq.kernels_cpu.products.layout import REGISTERS, Layout


def interleave(layout: Layout, fields: Fields, out: Bytes) -> None:
    """Fill out, uint8 ``[panels, blocks, block_bytes]``, from fields of ``panels · rows · blocks`` blocks.

    The fields are in the order of the rows: panel, row of the panel, block of the row.
    """
    panels, blocks, _ = out.shape
    split = layout.units * layout.unit_bytes
    units = out[:, :, :split].reshape(panels, blocks, layout.units, layout.unit_bytes)
    units[..., : layout.code_bytes] = _codes(layout, fields.codes, panels, blocks)
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


def _codes(layout: Layout, codes: Bytes, panels: int, blocks: int) -> Bytes:
    """``[panels, blocks, units, code_bytes]``."""
    if layout.format.levels and not layout.looks_up:
        codes = np.array(layout.unsigned_levels, np.uint8)[codes]
    steps, groups = layout.unit // layout.step, layout.step // 4
    lanes = (panels, REGISTERS, layout.lanes, blocks, layout.units, steps)
    planes, shift = [], 0
    for bits in layout.planes:
        part = (codes >> np.uint8(shift)) & np.uint8((1 << bits) - 1)
        shift += bits
        part = part.reshape(*lanes, groups * bits // 8, 8 // bits, 4)
        packed = part[..., 0, :].copy()
        for i in range(1, 8 // bits):
            packed |= part[..., i, :] << np.uint8(bits * i)
        planes.append(packed)
    registers = np.concatenate(planes, axis=-2)  # [..., registers of a step, 4]
    ordered = registers.transpose(0, 3, 4, 5, 1, 6, 2, 7)
    return np.ascontiguousarray(ordered).reshape(panels, blocks, layout.units, layout.code_bytes)


def _pairs(layout: Layout, values: NDArray[np.integer], panels: int, blocks: int) -> Bytes:
    """Neighbouring sub-blocks' bytes side by side: ``[panels, blocks, units, pair_bytes]``."""
    split = values.astype(np.uint8).reshape(panels, layout.rows, blocks, layout.units, 2)
    ordered = np.ascontiguousarray(split.transpose(0, 2, 3, 1, 4))
    return ordered.reshape(panels, blocks, layout.units, layout.pair_bytes)


def _floats(layout: Layout, values: NDArray[np.floating], panels: int, blocks: int) -> Bytes:
    wanted = values.astype(np.float16 if layout.halves else np.float32)
    ordered = wanted.reshape(panels, layout.rows, blocks).transpose(0, 2, 1)
    return np.ascontiguousarray(ordered).view(np.uint8)
