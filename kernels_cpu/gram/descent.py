"""Coordinate descent on codes and scales under a Gram matrix H: every move makes Σ e·H·e smaller.

A visit of a panel of columns, row by row: each sub-block looks for a better pair of scale and min among its
neighbours, its codes chosen anew by descent for each; then codes move one by one to the level nearest to where the
derivative is 0; then d and dmin are solved for by least squares, rounded to float16, and kept if that is better. What
a panel changed goes to the gradient of all columns in one product.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from edgeq.formats.blocks.base import Bytes, Floats
from edgeq.formats.blocks.lattice.base import Lattice, Parts
from edgeq.kernels_cpu import threads
from edgeq.kernels_cpu.gram.levels import nearest_code
from edgeq.kernels_cpu.gram.products import one_blas_thread, subtract
from edgeq.kernels_cpu.jit import helper, kernel
from edgeq.kernels_cpu.scalar import float_to_half, half_to_float

_PANEL = 256  # columns of a visit: their part of H stays in the cache
_SETTLED = 1e-3  # a round that moves a smaller part of the codes is the last
_TWO = np.float32(2)
_ZERO = np.float32(0)


class Rules(NamedTuple):
    """A lattice as the kernel takes it, and how far a visit looks: scales and mins within ``reach`` of those there
    are, ``trials`` sweeps over a sub-block for each, then ``sweeps`` over the panel."""

    levels: Floats
    consecutive: bool
    sub_values: int
    scales: tuple[float, float]
    mins: tuple[float, float]
    tied: bool
    half: bool
    reach: tuple[int, int]
    trials: int
    sweeps: int


def descend(
    target: Floats, parts: Parts, lattice: Lattice, gram: Floats, rounds: int = 4, choose_scales: bool = True
) -> None:
    """Improve ``parts`` (in rows) in place towards ``target``, float32 ``[rows, columns]``, in so many rounds.

    ``gram`` is float32 ``[columns, columns]``, symmetric, its diagonal positive. Without ``choose_scales`` only codes
    change.
    """
    rows, columns = target.shape
    block = columns // parts.d.shape[1]
    width = max(block, _PANEL // block * block)
    rules = _rules(lattice, choose_scales)
    with one_blas_thread():
        gradient = np.zeros(target.shape, np.float32)
        subtract(gradient, parts.values(lattice) - target, gram)
        changes = np.empty((rows, width), np.float32)
        for _ in range(rounds):
            moved = 0
            for begin in range(0, columns, width):
                end = min(begin + width, columns)
                corner = np.ascontiguousarray(gram[begin:end, begin:end])
                own = begin, block, gradient, corner, *parts, rules, choose_scales, changes
                moved += sum(threads.run(_visit_panel, rows, corner.size, *own))
                subtract(gradient, changes[:, : end - begin], gram[begin:end])
            if moved < _SETTLED * target.size:
                return


def _rules(lattice: Lattice, choose_scales: bool) -> Rules:
    def ranged(span: tuple[int, int]) -> tuple[float, float]:
        return float(span[0]), float(span[1])

    def reach(span: tuple[int, int]) -> int:
        return int(choose_scales and span[0] < span[1])

    return Rules(
        lattice.levels,
        lattice.consecutive,
        lattice.sub_values,
        ranged(lattice.scales),
        ranged(lattice.mins),
        lattice.tied,
        lattice.half,
        (reach(lattice.scales), reach(lattice.mins)),
        trials=2,
        sweeps=2,
    )


class _Row(NamedTuple):
    """One row's panel on the way: its values, −½ of the derivative by each, and memory to try things in."""

    x: Floats
    g: Floats
    u: Floats  # what a change of d by 1 does, and H times that
    hu: Floats
    v: Floats  # the same of dmin
    hv: Floats
    y: Floats  # a sub-block's values and g during a trial, its codes, and those of the best one
    r: Floats
    trial: Bytes
    best: Bytes


@helper
def _row(columns, sub_values):
    def floats(n):
        return np.zeros(n, np.float32)

    n = columns
    x, g, u, hu, v, hv = floats(n), floats(n), floats(n), floats(n), floats(n), floats(n)
    y, r = floats(sub_values), floats(sub_values)
    trial, best = np.zeros(sub_values, np.uint8), np.zeros(sub_values, np.uint8)
    return _Row(x, g, u, hu, v, hv, y, r, trial, best)


@kernel
def _visit_panel(
    first, last, begin, block, gradient, h, d, dmin, scales, mins, codes, rules, choose_scales, changes
):
    """Rows first..last of the panel of columns that begins there; how many codes moved. ``changes`` [rows, panel]."""
    columns, subs, blocks = h.shape[0], h.shape[0] // rules.sub_values, h.shape[0] // block
    row = _row(columns, rules.sub_values)
    at_sub, at_block = begin // rules.sub_values, begin // block
    moved = 0
    for n in range(first, last):
        own_d, own_dmin = d[n, at_block : at_block + blocks], dmin[n, at_block : at_block + blocks]
        own_scales, own_mins = scales[n, at_sub : at_sub + subs], mins[n, at_sub : at_sub + subs]
        own = codes[n, begin : begin + columns]
        _fill(row.x, own_d, own_dmin, own_scales, own_mins, own, rules)
        for k in range(columns):
            changes[n, k] = row.x[k]
            row.g[k] = gradient[n, begin + k]
        if choose_scales and rules.reach[0] + rules.reach[1]:
            for s in range(subs):
                b = s * blocks // subs
                _choose_pair(row, h, own_d[b], own_dmin[b], own_scales, own_mins, own, s, rules)
        for _ in range(rules.sweeps):
            now = _sweep(row, h, own_d, own_dmin, own_scales, own_mins, own, rules)
            moved += now
            if now == 0:
                break
        if choose_scales:
            for b in range(blocks):
                _refit(row, h, own_d, own_dmin, own_scales, own_mins, own, b, rules)
        for k in range(columns):
            changes[n, k] = row.x[k] - changes[n, k]
    return moved


@helper
def _fill(x, d, dmin, scales, mins, codes, rules):
    """The values of a row's panel."""
    subs = scales.size // d.size
    for k in range(x.size):
        s = k // rules.sub_values
        scale, offset = d[s // subs] * scales[s], -dmin[s // subs] * mins[s]
        x[k] = scale * rules.levels[codes[k]] + offset


@helper
def _move(row, h, k, new):
    """Value k of the panel changes: so does g of all."""
    delta = new - row.x[k]
    row.x[k] = new
    line = h[k]
    for i in range(line.size):
        row.g[i] -= delta * line[i]


@helper
def _sweep(row, h, d, dmin, scales, mins, codes, rules):
    """Each code moves to where the error is least, the others as they are; how many moved."""
    subs = scales.size // d.size
    moved = 0
    for k in range(row.x.size):
        s = k // rules.sub_values
        scale, offset = d[s // subs] * scales[s], -dmin[s // subs] * mins[s]
        wanted = row.x[k] + row.g[k] / h[k, k]
        code = nearest_code(wanted, scale, offset, rules.levels, rules.consecutive)
        if code == codes[k]:
            continue
        new = scale * rules.levels[code] + offset
        delta = new - row.x[k]
        if delta * (h[k, k] * delta - _TWO * row.g[k]) < _ZERO:
            codes[k] = code
            _move(row, h, k, new)
            moved += 1
    return moved


@helper
def _choose_pair(row, h, d, dmin, scales, mins, codes, s, rules):
    """The best scale and min of sub-block s within reach, with codes of its own for each."""
    least, best_scale, best_min = _ZERO, scales[s], mins[s]
    for i in range(-rules.reach[0], rules.reach[0] + 1):
        scale = scales[s] + np.float32(i)
        if scale < rules.scales[0] or scale > rules.scales[1] or d * scale == _ZERO:
            continue
        for j in range(-rules.reach[1], rules.reach[1] + 1):
            low = mins[s] + np.float32(j)
            if low < rules.mins[0] or low > rules.mins[1]:
                continue
            change = _try_pair(row, h, d * scale, -dmin * low, s * rules.sub_values, rules)
            if change < least:
                least, best_scale, best_min = change, scale, low
                for k in range(rules.sub_values):
                    row.best[k] = row.trial[k]
    if least == _ZERO:
        return
    scales[s], mins[s] = best_scale, best_min
    for k in range(rules.sub_values):
        place = s * rules.sub_values + k
        codes[place] = row.best[k]
        new = d * best_scale * rules.levels[row.best[k]] - dmin * best_min
        if new != row.x[place]:
            _move(row, h, place, new)


@helper
def _try_pair(row, h, scale, offset, begin, rules):
    """Codes of a sub-block on another grid, by descent; by how much the error changes."""
    n = rules.sub_values
    for k in range(n):
        row.y[k], row.r[k] = row.x[begin + k], row.g[begin + k]
    change = _ZERO
    for _ in range(rules.trials):
        for i in range(n):
            diagonal = h[begin + i, begin + i]
            wanted = row.y[i] + row.r[i] / diagonal
            code = nearest_code(wanted, scale, offset, rules.levels, rules.consecutive)
            row.trial[i] = code
            delta = scale * rules.levels[code] + offset - row.y[i]
            if delta != _ZERO:
                change += delta * (diagonal * delta - _TWO * row.r[i])
                row.y[i] += delta
                for k in range(n):
                    row.r[k] -= delta * h[begin + i, begin + k]
    return change


@helper
def _refit(row, h, d, dmin, scales, mins, codes, b, rules):
    """d and dmin of block b by least squares, as float16 where the type has that, if that is better."""
    size = row.x.size // d.size
    begin, end = b * size, (b + 1) * size
    _directions(row, h, scales, mins, codes, begin, end, rules)
    to_d, to_dmin = _solved(row, begin, end)
    new_d, new_dmin = d[b] + to_d, dmin[b] + to_dmin
    if rules.half:
        new_d, new_dmin = half_to_float(float_to_half(new_d)), half_to_float(float_to_half(new_dmin))
    if not (np.isfinite(new_d) and np.isfinite(new_dmin)):
        return
    to_d, to_dmin = new_d - d[b], new_dmin - dmin[b]
    change = _ZERO
    for k in range(begin, end):
        delta = to_d * row.u[k] + to_dmin * row.v[k]
        change += delta * (to_d * row.hu[k] + to_dmin * row.hv[k] - _TWO * row.g[k])
    if change < _ZERO:
        d[b] = new_d
        dmin[b] = new_d if rules.tied else new_dmin
        for k in range(begin, end):
            row.x[k] += to_d * row.u[k] + to_dmin * row.v[k]
        for k in range(row.x.size):
            row.g[k] -= to_d * row.hu[k] + to_dmin * row.hv[k]


@helper
def _directions(row, h, scales, mins, codes, begin, end, rules):
    """How the panel's values move with d and with dmin of one block, and H times these."""
    for k in range(row.x.size):
        row.hu[k] = row.hv[k] = _ZERO
    for j in range(begin, end):
        s = j // rules.sub_values
        u, v = scales[s] * rules.levels[codes[j]], -mins[s]
        if rules.tied:
            u, v = u + v, _ZERO
        row.u[j], row.v[j] = u, v
        line = h[j]
        for k in range(line.size):
            row.hu[k] += u * line[k]
        if v != _ZERO:
            for k in range(line.size):
                row.hv[k] += v * line[k]


@helper
def _solved(row, begin, end):
    """By how much d and dmin should change; 0 where nothing depends on them."""
    a = b = c = p = q = _ZERO
    for k in range(begin, end):
        a += row.u[k] * row.hu[k]
        b += row.u[k] * row.hv[k]
        c += row.v[k] * row.hv[k]
        p += row.u[k] * row.g[k]
        q += row.v[k] * row.g[k]
    determinant = a * c - b * b
    if determinant > np.float32(1e-6) * a * c:
        return (p * c - q * b) / determinant, (q * a - p * b) / determinant
    return (p / a if a > _ZERO else _ZERO), _ZERO
