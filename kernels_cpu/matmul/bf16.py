"""Dot products of float activations with BF16 weights."""

from __future__ import annotations

import numpy as np

from edgeq.kernels_cpu.decode.bf16 import decode_value
from edgeq.kernels_cpu.jit import kernel
from edgeq.kernels_cpu.scalar import dot


@kernel
def matmul_rows(first, last, x, rows, out):
    """x float32 ``[T, K]``, rows uint8 ``[N, K, 2]``; fills rows first..last of out ``[N, T]``."""
    weights = np.empty(x.shape[1], np.float32)
    for n in range(first, last):
        for k in range(x.shape[1]):
            weights[k] = decode_value(rows[n, k, 0], rows[n, k, 1])
        for t in range(x.shape[0]):
            out[n, t] = dot(weights, x[t])
