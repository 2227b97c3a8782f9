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
from edgeq.kernels_cpu.gram.levels import nearest_code
from edgeq.kernels_cpu.jit import kernel

_PANEL = 128  # columns whose feedback is added up before it goes to the others in one product


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
    return Factor(np.linalg.cholesky(gram[np.ix_(place, place)]), place)


def round_by_feedback(target: Floats, parts: Parts, lattice: Lattice, factor: Factor) -> None:
    """New codes for the scales that ``parts`` (in rows) has, in place; ``target`` is float32 ``[rows, columns]``."""
    rows, columns = target.shape
    lower, place = factor
    subs = place // lattice.sub_values
    scale, offset = parts.grid()
    moved = np.zeros((rows, columns), np.float32)
    for begin in range((columns - 1) // _PANEL * _PANEL, -1, -_PANEL):
        end = min(begin + _PANEL, columns)
        own, own_subs = place[begin:end], subs[begin:end]
        grid = target[:, own], scale[:, own_subs], offset[:, own_subs], moved[:, begin:end]
        corner = np.ascontiguousarray(lower[begin:end, begin:end])
        codes, errors = np.empty((rows, end - begin), np.uint8), np.empty((rows, end - begin), np.float32)
        arguments = (*(np.ascontiguousarray(a) for a in grid), corner, lattice.levels, lattice.consecutive)
        threads.run(_round_panel, rows, corner.size, *arguments, codes, errors)
        parts.codes[:, own] = codes
        moved[:, :begin] += errors @ lower[begin:end, :begin]


@kernel
def _round_panel(
    first: int,
    last: int,
    target: Floats,
    scale: Floats,
    offset: Floats,
    moved: Floats,
    corner: Floats,
    levels: Floats,
    consecutive: bool,
    codes: Bytes,
    errors: Floats,
) -> None:
    """Rows first..last of a panel ``[rows, width]``; ``corner`` is its part of the factor, ``moved`` is changed."""
    width = target.shape[1]
    for r in range(first, last):
        for i in range(width - 1, -1, -1):
            wanted = target[r, i] + moved[r, i] / corner[i, i]
            code = nearest_code(wanted, scale[r, i], offset[r, i], levels, consecutive)
            error = target[r, i] - (scale[r, i] * levels[code] + offset[r, i])
            codes[r, i] = code
            errors[r, i] = error
            for k in range(i):
                moved[r, k] += error * corner[i, k]
