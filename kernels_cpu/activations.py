"""Elementwise activations that NumPy has no ufunc for. Plain twins: tests/naive.py."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from edgeq.kernels_cpu import threads
from edgeq.kernels_cpu.jit import kernel


@kernel
def _gelu(first, last, x, out):
    for i in range(first, last):
        value = x[i]
        out[i] = (
            np.float32(0.5) * value * (np.float32(1) + np.float32(math.erf(value * np.float32(0.70710678))))
        )


def gelu(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """The exact GELU, x·Φ(x), of a float32 array of any shape."""
    flat = np.ascontiguousarray(x).reshape(-1)
    out = np.empty_like(flat)
    threads.run(_gelu, flat.size, 8, flat, out)
    return out.reshape(x.shape)
