"""Error feedback (GPTQ): column after column is rounded, and the columns still to come make up for what that did.

After Frantar et al. 2022 (arXiv:2210.17323), whose Algorithm 1 takes the upper Cholesky factor of the inverse of H.
Here the same choices come from the factor of H itself, H = L·Lᵀ with the columns in the opposite order: e·H·e =
Σ_i (L_ii·e_i + Σ_k>i L_ki·e_k)², so the last column is rounded by itself, and each one before it to where its own term
is 0. (Chen et al. 2025, arXiv:2507.18553, show that both are Babai's nearest plane.) No inverse, a third of the work.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgeq.formats.blocks.base import Bytes, Floats
from edgeq.formats.blocks.lattice.base import Lattice, Parts
from edgeq.kernels_cpu import threads
from edgeq.kernels_cpu.gram.cholesky import factorize
from edgeq.kernels_cpu.gram.levels import nearest_code
from edgeq.kernels_cpu.gram.products import one_blas_thread, subtract
from edgeq.kernels_cpu.jit import helper, kernel
from edgeq.kernels_cpu.views import read_only

_PANEL = 256  # columns in which the feedback goes from one to the next; to the panels before it goes in one product
_ROWS = 64  # at work side by side
_NONE, _ONE = np.float32(0), np.float32(1)


class Factor(NamedTuple):
    """L of H with its columns in the order ``place``, float32 ``[columns, columns]``; the last one is rounded first."""

    lower: Floats
    place: NDArray[np.intp]


def feedback_factor(gram: Floats, by_size: bool = True) -> Factor:
    """The factor of a positive definite matrix; raises numpy.linalg.LinAlgError for any other.

    ``by_size`` rounds the columns of large inputs first (activation order), else they come from left to right.
    """
    columns = len(gram)
    first = np.argsort(-np.diag(gram), kind="stable") if by_size else np.arange(columns)
    place = first[::-1].copy()
    lower = np.zeros_like(gram)  # of which the upper half is never touched, so it takes no memory
    for i, column in enumerate(place):
        np.take(gram[column], place[: i + 1], out=lower[i, : i + 1], mode="clip")
    factorize(lower)
    return Factor(lower, place)


def round_by_feedback(target: Floats, parts: Parts, lattice: Lattice, factor: Factor) -> None:
    """New codes for the scales that ``parts`` (in rows) has, in place; ``target`` is float32 ``[rows, columns]``."""
    rows, columns = target.shape
    lower, place = factor
    target, subs = read_only(np.ascontiguousarray(target)), place // lattice.sub_values
    grid = tuple(np.ascontiguousarray(part.T) for part in parts.grid())
    codes, errors = np.empty((rows, columns), np.uint8), np.empty((columns, rows), np.float32)
    with one_blas_thread():
        for begin in range((columns - 1) // _PANEL * _PANEL, -1, -_PANEL):
            end = min(begin + _PANEL, columns)
            asked = np.zeros((rows, end - begin), np.float32)
            subtract(asked, errors[end:].T, lower[end:, begin:end])
            corner = np.ascontiguousarray(lower[begin:end, begin:end])
            own = target, place[begin:end], *grid, subs[begin:end], asked, corner
            values = lattice.levels, lattice.consecutive
            groups = -(-rows // _ROWS)
            threads.run(_round_panel, groups, _ROWS * corner.size, *own, *values, codes, errors[begin:end])
    parts.codes[:] = codes


@kernel
def _round_panel(
    first: int,
    last: int,
    target: Floats,
    place: NDArray[np.intp],
    scale: Floats,
    offset: Floats,
    subs: NDArray[np.intp],
    asked: Floats,
    corner: Floats,
    levels: Floats,
    consecutive: bool,
    codes: Bytes,
    errors: Floats,
) -> None:
    """Groups of rows first..last of a panel of the columns ``place``; ``corner`` is its part of the factor.

    Of all rows: ``target`` and ``codes`` ``[rows, all columns]``; ``scale`` and ``offset`` ``[sub-blocks, rows]``;
    ``asked`` ``[rows, panel]``, what the panels behind it ask for, negative; ``errors`` ``[panel, rows]``.
    """
    width, rows = errors.shape
    x, left, found = (  # of a group, a row's values one below the other
        np.empty((width, _ROWS), np.float32),
        np.empty((width, _ROWS), np.float32),
        np.empty((width, _ROWS), np.uint8),
    )
    for group in range(first, last):
        begin, end = group * _ROWS, min(rows, group * _ROWS + _ROWS)
        count = end - begin
        for r in range(count):
            for i in range(width):
                x[i, r] = target[begin + r, place[i]]
                left[i, r] = asked[begin + r, i]
        for i in range(width - 1, -1, -1):
            wanted, error = left[i, :count], errors[i, begin:end]
            for r in range(count):
                wanted[r] = x[i, r] - wanted[r] / corner[i, i]
            _nearest(wanted, scale[subs[i], begin:end], offset[subs[i], begin:end], levels, consecutive,
                     x[i, :count], found[i, :count], error)  # fmt: skip
            for k in range(i):
                share = corner[i, k]
                for r in range(count):
                    left[k, r] -= error[r] * share
        for r in range(count):
            for i in range(width):
                codes[begin + r, place[i]] = found[i, r]


@helper
def _nearest(wanted, scale, offset, levels, consecutive, target, codes, errors):
    """Codes of a column's values, and what they leave."""
    if consecutive:
        low, top = levels[0], np.float32(levels.size - 1)
        for r in range(wanted.size):
            divisor = scale[r] if scale[r] != _NONE else _ONE
            level = min(max((wanted[r] - offset[r]) / divisor - low, _NONE), top)
            wanted[r] = np.rint(level) if scale[r] != _NONE else _NONE
        for r in range(wanted.size):
            codes[r] = np.uint8(wanted[r])
        for r in range(wanted.size):
            errors[r] = target[r] - (scale[r] * (wanted[r] + low) + offset[r])
        return
    for r in range(wanted.size):
        code = nearest_code(wanted[r], scale[r], offset[r], levels, consecutive)
        codes[r] = code
        errors[r] = target[r] - (scale[r] * levels[code] + offset[r])
