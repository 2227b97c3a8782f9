"""Plain twins of ``edgeq.kernels_cpu.gram``, a row and a column at a time."""

from __future__ import annotations

import numpy as np

from edgeq.formats.blocks.lattice import Lattice, Parts


def error(weights: np.ndarray, values: np.ndarray, gram: np.ndarray) -> np.ndarray:
    """e·H·e of each row, float64."""
    difference = (weights - values).astype(np.float64)
    return np.einsum("ri,ij,rj->r", difference, gram.astype(np.float64), difference)


def nearest(value: float, scale: float, offset: float, lattice: Lattice) -> int:
    """The code of the nearest point; 0 where the scale is 0."""
    return 0 if scale == 0 else int(np.abs(scale * lattice.levels + offset - value).argmin())


def round_by_feedback(target: np.ndarray, parts: Parts, lattice: Lattice, gram: np.ndarray) -> np.ndarray:
    """Codes by Algorithm 1 of GPTQ (arXiv:2210.17323): the upper Cholesky factor of the inverse, large inputs first."""
    order = np.argsort(-np.diag(gram), kind="stable")
    inverse = np.linalg.inv(gram[np.ix_(order, order)].astype(np.float64))
    upper = np.linalg.cholesky(inverse).T
    scale, offset = (np.repeat(part, lattice.sub_values, axis=1)[:, order] for part in parts.grid())
    left, codes = target[:, order].astype(np.float64), np.zeros(target.shape, np.uint8)
    for i in range(len(order)):
        for r in range(len(target)):
            code = nearest(left[r, i], scale[r, i], offset[r, i], lattice)
            codes[r, order[i]] = code
            wrong = (left[r, i] - (scale[r, i] * lattice.levels[code] + offset[r, i])) / upper[i, i]
            left[r, i:] -= wrong * upper[i, i:]
    return codes


def sweep(target: np.ndarray, parts: Parts, lattice: Lattice, gram: np.ndarray) -> np.ndarray:
    """Codes after one sweep of coordinate descent from left to right."""
    scale, offset = (np.repeat(part, lattice.sub_values, axis=1) for part in parts.grid())
    x, codes = parts.values(lattice).astype(np.float64), parts.codes.copy()
    for r in range(len(target)):
        for i in range(target.shape[1]):
            wanted = x[r, i] + (target[r] - x[r]) @ gram[i].astype(np.float64) / gram[i, i]
            codes[r, i] = nearest(wanted, scale[r, i], offset[r, i], lattice)
            x[r, i] = scale[r, i] * lattice.levels[codes[r, i]] + offset[r, i]
    return codes
