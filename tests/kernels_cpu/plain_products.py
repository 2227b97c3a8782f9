"""Plain twins of packing, activations and products: NumPy, one thing after the other, nothing in registers."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from edgeq.formats.blocks import (
    by_name,
    iq4_nl,
    iq4_xs,
    q2_k,
    q3_k,
    q4_0,
    q4_1,
    q4_k,
    q5_0,
    q5_1,
    q5_k,
    q6_k,
    q8_0,
)
from edgeq.formats.blocks.packing import unpack_fifth_bits, unpack_nibbles, unpack_two_bits
from edgeq.kernels_cpu.products.fields import Fields
from edgeq.kernels_cpu.products.layout import REGISTERS, Format, Layout
from edgeq.kernels_cpu.quantized_activations import Quantized
from edgeq.kernels_cpu.registry import kernels


class Weights(NamedTuple):
    """What n blocks say, ``[n, ...]``: the codes, a byte each, and the fields beside them."""

    codes: np.ndarray  # [n, block], or that many in more axes
    d: np.ndarray
    scales: np.ndarray | None = None
    mins: np.ndarray | None = None
    second: np.ndarray | None = None
    zeros: np.ndarray | None = None

    @property
    def fields(self) -> Fields:
        return Fields(*self[1:])


def _nibbles(block: np.ndarray) -> np.ndarray:
    return unpack_nibbles(block["qs"])


def _fifth_bits(block: np.ndarray) -> np.ndarray:
    return unpack_nibbles(block["qs"]) | unpack_fifth_bits(block["qh"])


_CODES: dict[str, tuple[np.dtype, Callable[[np.ndarray], np.ndarray]]] = {
    "Q4_0": (q4_0.FIELDS, _nibbles),
    "Q4_1": (q4_1.FIELDS, _nibbles),
    "Q5_0": (q5_0.FIELDS, _fifth_bits),
    "Q5_1": (q5_1.FIELDS, _fifth_bits),
    "Q8_0": (q8_0.FIELDS, lambda block: (block["qs"].astype(np.int16) + 128).astype(np.uint8)),
    "Q2_K": (q2_k.FIELDS, lambda block: unpack_two_bits(block["qs"])),
    "Q3_K": (q3_k.FIELDS, q3_k.unpack_codes),
    "Q4_K": (q4_k.FIELDS, q4_k.unpack_codes),
    "Q5_K": (q5_k.FIELDS, q5_k.unpack_codes),
    "Q6_K": (q6_k.FIELDS, q6_k.unpack_codes),
    "IQ4_NL": (iq4_nl.FIELDS, _nibbles),
    "IQ4_XS": (iq4_xs.FIELDS, _nibbles),
}


def weights(name: str, rows: np.ndarray) -> tuple[Format, Weights]:
    """Encoded rows taken apart, codes by the plain codecs' own functions."""
    blocks = np.ascontiguousarray(rows).reshape(-1, by_name(name).block_bytes)
    module = kernels("edgeq.kernels_cpu.products", name)
    assert module is not None
    fields, codes = _CODES[name]
    return module.FORMAT, Weights(codes(blocks.view(fields)[:, 0]), *module.fields(blocks))


def interleaved_codes(layout: Layout, codes: np.ndarray, panels: int, blocks: int) -> np.ndarray:
    """Twin of ``rearrange.write_codes``: uint8 ``[panels, blocks, units, code_bytes]``."""
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


def unpack(layout: Layout, data: np.ndarray) -> Weights:
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
    return Weights(
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


def values(form: Format, fields: Weights, n: int) -> np.ndarray:
    """The codes as the integers that are summed, bias off: int64 ``[n, blocks, sub-blocks, columns]``."""
    codes = fields.codes.reshape(n, -1, form.block)
    codes = np.array(form.levels)[codes] if form.levels else codes.astype(np.int64) - form.bias
    sub = form.sub or form.block
    return codes.reshape(n, codes.shape[1], form.block // sub, sub)


def integers(form: Format, fields: Weights, x: Quantized, n: int) -> tuple[np.ndarray, np.ndarray]:
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


def product(form: Format, fields: Weights, x: Quantized, n: int) -> np.ndarray:
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
