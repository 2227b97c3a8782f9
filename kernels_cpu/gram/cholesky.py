"""The Cholesky factor of a large matrix, in place.

``np.linalg.cholesky`` copies the matrix twice and takes three times as long. Here the matrix is cut into panels (Golub
and Van Loan, Matrix Computations, 4.2), so that nearly all the work is products, and the corners are small enough to be
factored in float64.
"""

from __future__ import annotations

import numpy as np

from edgeq.formats.blocks.base import Floats
from edgeq.kernels_cpu.gram.products import multiply_in_place, one_blas_thread, subtract

_PANEL = 256


def factorize(matrix: Floats) -> None:
    """Put L of a symmetric float32 ``[n, n]`` = L·Lᵀ where its lower half is; nothing above the panels is touched.

    Raises numpy.linalg.LinAlgError where the matrix is not positive definite, and leaves it half done.
    """
    with one_blas_thread():
        for begin in range(0, len(matrix), _PANEL):
            end = min(begin + _PANEL, len(matrix))
            panel, below = matrix[begin:, begin:end], matrix[end:, begin:end]
            subtract(panel, matrix[begin:, :begin], matrix[begin:end, :begin].T)
            corner = np.linalg.cholesky(panel[: end - begin].astype(np.float64))
            panel[: end - begin] = corner
            multiply_in_place(below, np.linalg.inv(corner).T.astype(np.float32))
