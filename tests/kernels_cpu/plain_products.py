"""Plain twins of packing, activations and products: NumPy, one thing after the other, nothing in registers."""

from __future__ import annotations

import numpy as np

from edgeq.kernels_cpu.products.fields import Fields
from edgeq.kernels_cpu.products.layout import REGISTERS, Format, Layout
from edgeq.kernels_cpu.quantized_activations import Quantized


def quantize(x: np.ndarray, kind: str, block: int, sub: int) -> Quantized:
    """Twin of ``quantized_activations.quantize``, without rows that fill up."""
    blocks = x.reshape(len(x), -1, block)
    magnitudes = np.abs(blocks)
    peak = magnitudes.max(axis=2)
    with np.errstate(all="ignore"):
        if kind == "Q8_K":
            signed = np.take_along_axis(blocks, magnitudes.argmax(axis=2)[..., None], axis=2)[..., 0]
            inverse = np.float32(-127) / signed
            scale = np.where(peak == 0, np.float32(0), np.float32(1) / inverse)
        else:
            inverse = np.float32(127) / peak
            scale = peak / np.float32(127)
        inverse = np.where((peak == 0) | ~np.isfinite(peak) | ~np.isfinite(inverse), np.float32(0), inverse)
        codes = np.minimum(np.rint(np.where(np.isfinite(blocks), blocks, 0) * inverse[..., None]), 127)
        codes = np.where(inverse[..., None] == 0, 0, codes).astype(np.int8)
        scale = np.where(np.isfinite(peak), scale, np.float32(np.nan))
        sums = codes.astype(np.int32).sum(axis=2)
        s = (scale * sums.astype(np.float32)).astype(np.float16).astype(np.float32)
        if kind in ("Q8_0", "Q8_1"):
            scale = scale.astype(np.float16).astype(np.float32)
    codes = codes.reshape(x.shape)
    if sub:
        words = codes.reshape(len(x), -1, sub).sum(axis=2, dtype=np.int16).view(np.int32)
    else:
        words = s.view(np.int32) if kind == "Q8_1" else sums.astype(np.int32)
    return Quantized(codes, scale.astype(np.float32), words)


def unpack(layout: Layout, data: np.ndarray) -> Fields:
    """The inverse of ``interleave``, by the description in ``layout``: bit by bit, row by row."""
    form = layout.format
    panels, blocks, _ = data.shape
    n = panels * layout.rows
    codes = np.zeros((n, blocks, form.block), np.uint8)
    pairs = np.zeros((2, n, blocks, form.block // layout.sub), np.uint8)
    kind = np.float16 if layout.halves else np.float32
    floats = np.zeros((2, n, blocks), kind)
    zeros = np.zeros((n, blocks), np.uint8)
    for row in range(n):
        panel, within = divmod(row, layout.rows)
        j, lane = divmod(within, layout.lanes)
        for b in range(blocks):
            block = data[panel, b]
            for column in range(form.block):
                codes[row, b, column] = _code(layout, block, j, lane, column)
            for unit in range(layout.units if form.sub else 0):
                at = unit * layout.unit_bytes + layout.code_bytes + 2 * within
                for k in range(1 + layout.has_mins):
                    pairs[k, row, b, 2 * unit : 2 * unit + 2] = block[at : at + 2]
                    at += layout.pair_bytes
            at = layout.units * layout.unit_bytes
            for k in range(layout.floats):
                floats[k, row, b] = block[at : at + layout.float_bytes].view(kind)[within]
                at += layout.float_bytes
            if layout.has_zeros:
                zeros[row, b] = block[at + within]
    scales = pairs[0].view(np.int8) if form.signed_scales else pairs[0]
    return Fields(
        codes,
        floats[0],
        scales if form.sub else None,
        pairs[1] if layout.has_mins else None,
        floats[1] if layout.floats > 1 else None,
        zeros if layout.has_zeros else None,
    )


def _code(layout: Layout, block: np.ndarray, j: int, lane: int, column: int) -> int:
    """One code of a block (what an index of levels stands for, where levels are stored)."""
    unit, column = divmod(column, layout.unit)
    step, column = divmod(column, layout.step)
    group, byte = divmod(column, 4)
    register = (step * REGISTERS + j) * layout.step_registers
    code = shift = 0
    for bits in layout.planes:
        held = 8 // bits
        at = unit * layout.unit_bytes + (register + group // held) * layout.register + 4 * lane + byte
        code |= (int(block[at]) >> bits * (group % held) & (1 << bits) - 1) << shift
        register += layout.step // 4 // held
        shift += bits
    return code


def values(form: Format, fields: Fields, n: int) -> np.ndarray:
    """The codes as the integers that are summed, bias off: int64 ``[n, blocks, sub-blocks, columns]``."""
    codes = fields.codes.reshape(n, -1, form.block)
    codes = np.array(form.levels)[codes] if form.levels else codes.astype(np.int64) - form.bias
    sub = form.sub or form.block
    return codes.reshape(n, codes.shape[1], form.block // sub, sub)


def integers(form: Format, fields: Fields, x: Quantized, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Two int64 ``[T, n, blocks]``: what d, and what dmin or m is multiplied with (0 where there is neither)."""
    weights = values(form, fields, n)
    rows = x.codes.astype(np.int64).reshape(len(x.codes), *weights.shape[1:])
    dots = np.einsum("tbsc,nbsc->tnbs", rows, weights)
    sums = rows.sum(axis=3)  # [T, blocks, sub-blocks]
    shape = weights.shape[:3]
    low = np.zeros((len(rows), *shape[:2]), np.int64)
    if fields.mins is not None:
        low = np.einsum("tbs,nbs->tnb", sums, fields.mins.reshape(shape).astype(np.int64))
    if fields.zeros is not None:
        dots = dots - sums[:, None] * fields.zeros.reshape(*shape[:2], 1).astype(np.int64)
    if fields.scales is not None:
        dots = dots * fields.scales.reshape(shape).astype(np.int64)
    return dots.sum(axis=3), low


def product(form: Format, fields: Fields, x: Quantized, n: int) -> np.ndarray:
    """float64 ``[T, n]`` of the same quantized operands."""
    high, low = integers(form, fields, x, n)
    d = fields.d.reshape(n, -1).astype(np.float64)
    d_x = x.scales.astype(np.float64)[:, None, :]
    total = d * d_x * high
    if fields.second is not None:
        second = fields.second.reshape(n, -1).astype(np.float64)
        if form.correction == "mins":
            total = total - second * d_x * low
        else:
            total = total + second * x.words.view(np.float32).astype(np.float64)[:, None, :]
    return np.asarray(total.sum(axis=2))
